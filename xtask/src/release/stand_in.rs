//! A small program in place of the service, for the tests of packages: `rustc` builds it in a second.

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--version"] => println!("whimbrel {}", env!("STAND_IN_VERSION")),
        ["completions", shell] => println!("# completions of whimbrel for {shell}"),
        _ => std::process::exit(2),
    }
}
