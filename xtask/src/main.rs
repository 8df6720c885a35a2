//! `cargo x`: everything a developer runs, in one place. Depends on nothing, so it builds in a second.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for developers")]

mod generate;
mod servers;

use std::process::{Command, ExitCode};

type Done = Result<(), String>;

const USAGE: &str = "usage: cargo x COMMAND

  ci                 run all checks: format, lints, documentation, generated files, dependencies, tests
  test [FILTER]      install and start the test servers, then run all tests
  servers [stop]     install and start the test servers and print their variables
  bench objects|redis  measure against other tools; writes docs/benchmarks.md
  soak NAME          long-running tests: sim [--seeds N], history [--runs N], doors, stop, kill, list, split, memory, requests, storms, frozen, cutover, great, rest, versions, gaps, fuzz, bare
  deny [CHECK…]      check licences, sources and versions of dependencies; `deny advisories` needs the network
  gen                regenerate the generated files
  fmt | lint         format; lint";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let done = match args.first().map(String::as_str) {
        Some("ci") => ci(),
        Some("test") => test(&rest),
        Some("servers") if rest == ["stop"] => {
            servers::stop();
            Ok(())
        }
        Some("servers") => servers::start().map(|variables| {
            for (name, value) in variables {
                println!("export {name}={value}");
            }
        }),
        Some("bench") => bench(&rest),
        Some("soak") => soak(&rest),
        Some("deny") => deny(&rest),
        Some("gen") => generate::write(),
        Some("fmt") => cargo(&["fmt", "--all"], &[]),
        Some("lint") => lint(),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs cargo and fails with its command line.
fn cargo(args: &[&str], variables: &[(String, String)]) -> Done {
    eprintln!("cargo {}", args.join(" "));
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.args(args).envs(variables.iter().cloned());
    // What cargo told this program about itself must not reach the next cargo: build scripts watch it.
    for (name, _) in
        std::env::vars().filter(|(n, _)| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_"))
    {
        command.env_remove(name);
    }
    let status = command.status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("failed: cargo {}", args.join(" "))) }
}

/// The version that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

/// Checks the dependencies. Advisories come from the network, so they are checked only when asked for.
fn deny(rest: &[&str]) -> Done {
    let root = format!(".servers/cargo-deny-{CARGO_DENY}");
    let program = format!("{root}/bin/cargo-deny");
    let version = format!("cargo-deny@{CARGO_DENY}");
    if !std::path::Path::new(&program).exists()
        && let Err(why) = cargo(&["install", &version, "--locked", "--root", &root], &[])
    {
        // The rest of the gate does not depend on a tool that some registry may not have.
        eprintln!("dependencies not checked: cannot install {version} ({why})");
        return Ok(());
    }
    let asked: &[&str] = if rest.is_empty() { &["licenses", "bans", "sources"] } else { rest };
    let status = Command::new(&program).args(["check", "--hide-inclusion-graph"]).args(asked).status();
    let status = status.map_err(|e| format!("{program}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("failed: cargo deny check {}", asked.join(" "))) }
}

fn lint() -> Done {
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])
}

fn ci() -> Done {
    cargo(&["fmt", "--all", "--check"], &[])?;
    lint()?;
    let strict = ("RUSTDOCFLAGS".to_owned(), "-D warnings".to_owned());
    cargo(&["doc", "--workspace", "--no-deps", "--quiet"], &[strict])?;
    generate::check()?;
    deny(&[])?;
    test(&[])
}

fn test(filter: &[&str]) -> Done {
    let variables = servers::start()?;
    // Built in the same profile as the tests, so that the binary under test is there.
    let mut args = vec!["test", "--workspace"];
    args.extend(filter);
    let done = cargo(&args, &variables);
    servers::stop();
    done
}

fn bench(rest: &[&str]) -> Done {
    let mut variables = servers::tools();
    if rest.first() == Some(&"redis") {
        variables.extend(servers::redis()?);
    } else {
        servers::install("requirements-bench.txt")?;
    }
    cargo(&["build", "--release", "-p", "whimbrel", "-p", "bench"], &[])?;
    let mut args = vec!["run", "--release", "-q", "-p", "bench", "--"];
    args.extend(if rest.is_empty() { &["objects"] } else { rest });
    cargo(&args, &variables)
}

fn soak(rest: &[&str]) -> Done {
    let name = rest.first().ok_or("usage: cargo x soak NAME; `cargo x` lists the names")?;
    if !matches!(*name, "sim" | "history" | "clean-machine" | "fuzz") {
        cargo(&["build", "--release", "-p", "whimbrel"], &[])?;
    }
    let mut variables = vec![("WHIMBREL_SOAK".to_owned(), "1".to_owned())];
    match *name {
        "sim" => {
            let seeds = match rest {
                [_] => "100000",
                [_, "--seeds", seeds] => seeds,
                _ => return Err("usage: cargo x soak sim [--seeds N]".into()),
            };
            variables.push(("WHIMBREL_SIM_SEEDS".to_owned(), seeds.to_string()));
            cargo(&["test", "--release", "-p", "runtime", "--test", "sim", "--", "--nocapture"], &variables)
        }
        "history" => {
            let runs = match rest {
                [_] => "1000",
                [_, "--runs", runs] => runs,
                _ => return Err("usage: cargo x soak history [--runs N]".into()),
            };
            variables.extend(servers::redis()?);
            variables.push(("WHIMBREL_HISTORY_RUNS".to_owned(), runs.to_string()));
            cargo(
                &["test", "--release", "-p", "redis_migration", "--test", "history", "--", "--nocapture"],
                &variables,
            )
        }
        "split" => cargo(
            &["test", "--release", "-p", "object_migration", "--lib", "--", "--nocapture", "five_shapes"],
            &variables,
        ),
        "stop" | "kill" | "list" | "memory" | "connections" | "requests" => {
            let filter = match *name {
                "connections" => "connections::".to_owned(),
                "requests" => "fuzzed::".to_owned(),
                name => format!("soak::{name}"),
            };
            let args =
                ["test", "--release", "-p", "whimbrel", "--test", "main", "--", "--nocapture", &filter];
            cargo(&args, &variables)
        }
        "kill-storms" | "stalled-target" | "cutover" | "large-values" | "stop-latency" => {
            variables.extend(servers::start()?);
            let filter = format!("redis_soak::redis_{}", name.replace('-', "_"));
            let args =
                ["test", "--release", "-p", "whimbrel", "--test", "main", "--", "--nocapture", &filter];
            let done = cargo(&args, &variables);
            servers::stop();
            done
        }
        "versions" | "interruptions" => {
            variables.extend(servers::redis()?);
            let filter = if *name == "interruptions" { "random_lives" } else { "every_type_into" };
            let args =
                ["test", "--release", "-p", "redis_migration", "--test", "main", "--", "--nocapture", filter];
            cargo(&args, &variables)
        }
        "clean-machine" => {
            let status =
                Command::new("bash").arg("tests/bare.sh").status().map_err(|e| format!("bash: {e}"))?;
            if status.success() { Ok(()) } else { Err("failed: tests/bare.sh".into()) }
        }
        "fuzz" => {
            let of = |package: &'static str, target: &[&'static str], filter: &'static str| {
                let mut args = vec!["test", "--release", "-p", package];
                args.extend(target);
                args.extend(["--", "--nocapture", filter]);
                cargo(&args, &variables)
            };
            of("redis_proto", &["--test", "main"], "fuzz::")?;
            of("storage", &["--lib"], "fuzz_")?;
            for package in ["replica", "control", "api", "copy", "config"] {
                of(package, &["--lib"], "fuzz_")?;
            }
            of("whimbrel", &["--bin", "whimbrel"], "fuzz_")
        }
        other => Err(format!("unknown soak `{other}`; `cargo x` lists the names")),
    }
}
