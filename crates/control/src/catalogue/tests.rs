use super::*;

fn location(region: &str) -> Location {
    Location { region: region.into(), ..Location::default() }
}

/// A region that is a URL leads to a host that the operator lists, or is not found.
#[test]
fn fuzz_regions() {
    let text = "[limits]\ninline_endpoints = [\"10.1.0.0/16\", \"ok.example\"]\n";
    let config = config::parse(text, &BTreeMap::new()).unwrap();
    let catalogue = std::panic::AssertUnwindSafe(Catalogue::new(&config, flow_control::clock::system()));
    let corpus = [
        &b"http://10.1.2.3:9000"[..],
        b"https://ok.example",
        b"http://10.2.0.1",
        b"cn-north-1",
        b"http://ok.example@h",
    ];
    let listed = ["10.1.0.0/16", "ok.example"].map(str::to_owned);
    testkit::fuzz::fuzz("regions", &corpus.map(<[u8]>::to_vec), |input, _| {
        let region = String::from_utf8_lossy(input).into_owned();
        let inline = region.starts_with("http://") || region.starts_with("https://");
        for side in [Side::Source, Side::Target] {
            if let Some(StoreLocation::S3 { endpoint, .. }) = catalogue.find(&location(&region), side)
                && inline
            {
                let host = host_of(&endpoint).unwrap_or_default();
                assert!(Egress::listed(&listed).may_lead_to(&host), "{region:?} leads to {endpoint}");
            }
        }
    });
}

#[test]
fn sec_f05_project_sees_only_its_own_and_shared_entries() {
    let uuid = |n: u32| format!("0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f1{n}");
    let mut text = "[[project]]\nid=\"a\"\nname=\"one\"\n[[project]]\nid=\"b\"\nname=\"two\"\n".to_owned();
    for (n, owner) in ["one", "b", "*"].into_iter().enumerate() {
        let id = uuid(n as u32);
        text.push_str(&format!(
            "[[store]]\nregion=\"s{n}\"\nendpoint=\"http://h{n}\"\nprojects=[\"{owner}\"]\n\
             [[store]]\nregion=\"d{n}\"\npath=\"/srv/{n}\"\ncloud_type=[\"AWS\"]\nprojects=[\"{owner}\"]\n\
             [[redis]]\nid=\"{id}\"\nname=\"r{n}\"\naddrs=\"h:1\"\nprojects=[\"{owner}\"]\n\
             [[bucket]]\nname=\"k{n}\"\nlocation=\"/srv/{n}\"\nprojects=[\"{owner}\"]\n"
        ));
    }
    let config = config::parse(&text, &BTreeMap::new()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let keys = Keyring::open_or_create(&dir.path().join("seal.key")).unwrap();
    let whole = Catalogue::new(&config, flow_control::clock::system());
    whole.register(&config, &BTreeMap::new(), &keys).unwrap();
    let seen = |c: &Catalogue| {
        let by_region = |r: &str| c.find(&location(r), Side::Target).is_some();
        let regions: Vec<usize> =
            (0..3).filter(|n| by_region(&format!("s{n}")) && by_region(&format!("d{n}"))).collect();
        let listed = c.source_regions().into_iter().filter(|(.., at)| at.starts_with("http://h")).count();
        let registry = c.registry();
        let ids: Vec<String> = registry.instances.iter().map(|i| i.name.clone()).collect();
        let buckets: Vec<String> = registry.buckets.iter().map(|b| b.name.clone()).collect();
        assert_eq!((listed, ids.len(), buckets.len()), (regions.len(), regions.len(), regions.len()));
        assert_eq!(c.regions_of("AWS", Side::Source).len(), 2 * regions.len());
        regions
    };
    assert_eq!(seen(&whole), [0, 1, 2]);
    assert_eq!(seen(&whole.for_project("a")), [0, 2]);
    assert_eq!(seen(&whole.for_project("b")), [1, 2]);
    assert!(whole.for_project("strange").find(&location("s0"), Side::Target).is_none());
}

#[test]
fn inline_endpoints_must_be_allowed() {
    let allowed = ["127.0.0.1".to_owned(), "10.1.0.0/16".to_owned(), "minio.lab".to_owned()];
    for (region, want) in [
        ("http://127.0.0.1:9000", true),
        ("eu-1@https://127.0.0.1", true),
        ("http://10.1.200.3:1", true),
        ("http://10.2.0.1:1", false),
        ("http://minio.lab:9000", true),
        ("http://127.0.0.1:9000/x", false),
        ("http://u@127.0.0.1", false),
        ("us-east-1", false),
    ] {
        assert_eq!(inline(&location(region), &allowed).is_some(), want, "{region}");
    }
    assert!(inline(&location("http://127.0.0.1"), &[]).is_none());
}

#[test]
fn sec_f04_f09_locations_use_the_address_rules_of_their_origin() {
    let allowed = ["10.99.0.0/16".to_owned(), "minio.lab".to_owned()];
    let at = |region: &str, cloud_type: &str| {
        let place = Location { cloud_type: cloud_type.into(), ..location(region) };
        match inline(&place, &allowed).or_else(|| built_in(&place, Side::Source, &allowed)) {
            Some(
                StoreLocation::S3 { egress, .. }
                | StoreLocation::Azure { egress, .. }
                | StoreLocation::Google { egress, .. },
            ) => egress,
            _ => Egress::default(),
        }
    };
    let loopback = "127.0.0.1".parse().unwrap();
    for vendor in ["AWS", "Azure", "Google"] {
        for region in ["http://localhost:1", "http://2130706433:1", "http://127.1:1"] {
            assert!(!at(region, vendor).allows("localhost", loopback), "{vendor} {region}");
        }
        assert!(at("http://minio.lab:1", vendor).allows("minio.lab", loopback), "{vendor}");
    }
    assert!(!at("us-east-1", "AWS").allows("s3.us-east-1.amazonaws.com", loopback));
    assert!(!at("", "Azure").allows("x.blob.core.windows.net", loopback));
}

#[test]
fn sec_f22_directory_error_shows_the_bucket_name_not_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("photos");
    let failure = Fs::open(&path, false).unwrap_err();
    assert!(failure.message.contains(&*path.to_string_lossy()), "what the operator reads: {failure}");
    let told = without_path(failure, &path, "photos");
    assert!(told.message.starts_with("directory `photos`: "), "{told}");
}
