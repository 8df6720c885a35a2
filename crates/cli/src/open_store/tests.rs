use super::*;
use clap::Parser;

fn ends() -> Ends {
    let cli = crate::args::Cli::parse_from(["whimbrel", "copy", "a", "b"]);
    match cli.command {
        crate::args::Command::Copy(copy) => copy.ends,
        _ => unreachable!("parsed a copy"),
    }
}

#[test]
fn fuzz_location_arguments() {
    let corpus = [
        "s3://b/p/q",
        "az://c/x",
        "gs://b",
        "fs:///a/b",
        "minio-a:b/p",
        "https://h/list.txt",
        "./x",
        "ftp://x/y",
    ];
    let ends = ends();
    testkit::fuzz::fuzz("places", &corpus.map(|text| text.as_bytes().to_vec()), |input, _| {
        let text = String::from_utf8_lossy(input);
        for side in [Side::Source, Side::Target] {
            match CliUrl::parse(&text, &ends, side) {
                Ok(place) => assert!(text.contains(place.prefix()) || place.prefix().is_empty()),
                Err(failure) => assert_eq!(failure.kind, Kind::Invalid),
            }
        }
    });
}

#[test]
fn location_arguments_are_parsed() {
    let parse = |text: &str| CliUrl::parse(text, &ends(), Side::Source);
    assert!(matches!(parse("/a/b"), Ok(CliUrl::Directory(_))));
    assert!(matches!(parse("fs:///a/b"), Ok(CliUrl::Directory(p)) if p == *"/a/b"));
    assert!(
        matches!(parse("s3://b/p/q"), Ok(CliUrl::S3 { bucket, prefix, .. }) if bucket == "b" && prefix == "p/q")
    );
    assert!(matches!(parse("minio-a:b/p"), Ok(CliUrl::Store { region, .. }) if region == "minio-a"));
    assert!(parse("s3://").is_err() && parse("ftp://x/y").is_err());
}
