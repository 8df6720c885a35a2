//! Object versions.

use super::*;

/// `ListObjectVersions` of a bucket in which the key `m` has versions without an end, ten in each answer.
fn endless_versions(query: &str) -> String {
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap_or_default();
    let version = |key: &str, id: usize| {
        format!(
            "<Version><Key>{key}</Key><VersionId>v{id:07}</VersionId><IsLatest>false</IsLatest>\
             <LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;{MD5_OF_1}&quot;</ETag>\
             <Size>1</Size></Version>"
        )
    };
    let (prefix, key, id) = (value("prefix="), value("key-marker="), value("version-id-marker="));
    let begun = id.trim_start_matches('v').parse::<usize>().unwrap_or(0);
    let (first, more) = match (key, id) {
        _ if prefix == "z" => (version("z", 1), false),
        _ if prefix == "m" => (String::new(), true),
        ("m", "") => (version("z", 1), false),
        ("", _) => (version("a", 1), true),
        ("a" | "m", _) => (String::new(), true),
        _ => (String::new(), false),
    };
    let last = begun + 10;
    let of_m: String = (begun + 1..=last).filter(|_| more).map(|i| version("m", i)).collect();
    let next =
        format!("<NextKeyMarker>m</NextKeyMarker><NextVersionIdMarker>v{last:07}</NextVersionIdMarker>");
    let next = if more { next } else { String::new() };
    format!("<ListVersionsResult><IsTruncated>{more}</IsTruncated>{next}{first}{of_m}</ListVersionsResult>")
}

/// Answers what is asked about versions; `listed`: the versions.
fn versioned(call: &Call<'_>, listed: impl Fn(&str) -> String) -> Step {
    let asks =
        |name: &str| call.key.is_empty() && call.query.split('&').any(|p| p.trim_end_matches('=') == name);
    if asks("versioning") {
        let xml = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        return Step::Answer(200, vec![], xml.into());
    }
    if asks("versions") {
        return Step::Answer(200, vec![], listed(call.query).into_bytes());
    }
    Step::Serve
}

#[test]
fn obj_16_key_with_too_many_versions_fails_only_that_key() {
    let from = scripted(|call| versioned(call, endless_versions));
    let from = filled(from, &[("a", "1"), ("m", "1"), ("z", "1")]);
    let none = "<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>";
    let to = target(move |call| versioned(call, |_| none.to_owned()));
    let output = run(&from, &to, &["--all-versions"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("`m`") || said(&output).contains("failed m"), "{}", said(&output));
    assert_eq!(keys(&to, "to"), ["a", "z"], "{}", said(&output));
}
