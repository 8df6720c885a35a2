//! The table as a full matrix: whatever each side keeps and whatever is computed in flight, no verdict contradicts the
//! truth.

use storage::checksum::Hasher;

use super::*;

const BYTES: [&[u8]; 2] = [b"the object", b"the 0bject"];

/// The forms of ETag that an object of some bytes can have.
fn etags(content: usize) -> [Etag; 4] {
    let md5 = digests(content).md5.unwrap();
    [Etag::Md5(md5), Etag::Parts(md5, 2), Etag::Md5(md5).opaque(), Etag::None]
}

fn digests(content: usize) -> Digests {
    let all = DigestSet { md5: true, crc64_nvme: true, crc32c: true, sha256: true, crc64_ecma: true };
    let mut hasher = Hasher::new(all);
    hasher.update(BYTES[content]);
    hasher.finish()
}

/// The checksums that a side may keep or a transfer compute: none, each alone, all.
fn sums(content: usize) -> [Checksums; 6] {
    let all = digests(content).sums;
    let none = Checksums::default();
    [
        none,
        Checksums { crc64_nvme: all.crc64_nvme, ..none },
        Checksums { crc32c: all.crc32c, ..none },
        Checksums { sha256: all.sha256, ..none },
        Checksums { crc64_ecma: all.crc64_ecma, ..none },
        all,
    ]
}

/// Every claim about some bytes.
fn claims(content: usize) -> Vec<ReportedDigests> {
    let pair = |etag: Etag| sums(content).map(|sums| ReportedDigests { etag: etag.clone(), sums });
    etags(content).into_iter().flat_map(pair).collect()
}

/// Every set of digests in flight.
fn in_flight(content: usize) -> Vec<Option<Digests>> {
    let all = digests(content);
    let with = |md5| sums(content).map(|sums| Some(Digests { md5, sums, bytes: all.bytes }));
    [None].into_iter().chain(with(None)).chain(with(all.md5)).collect()
}

#[test]
fn sec_f02_obj_03_verification_never_contradicts_the_content() {
    let mut verdicts = 0;
    for (has, read, kept) in (0..8).map(|bits| (bits & 1, bits >> 1 & 1, bits >> 2 & 1)) {
        for source in claims(has) {
            for stored in claims(kept) {
                for seen in in_flight(read) {
                    verdicts += 1;
                    let verdict = compare_digests(&source, seen, &stored);
                    let told = seen.unwrap_or_default();
                    let case = format!(
                        "has {has}, read {read}, kept {kept}: {source:?} {seen:?} {stored:?}: {verdict:?}"
                    );
                    match &verdict {
                        // Whoever says something of the bytes agrees with all others that do.
                        Verdict::Proved(_) => {
                            assert_ne!(source.matches_flight(&told), Some(false), "{case}");
                            assert_ne!(stored.matches_flight(&told), Some(false), "{case}");
                            let connected = source.across(&stored).is_some();
                            // A source that says something of its bytes was compared with something.
                            let compared = connected || source.matches_flight(&told).is_some();
                            assert!(compared || !source.tells_digest(), "{case}");
                            assert!(if connected { has == kept } else { read == kept }, "{case}");
                        }
                        Verdict::Differs(_) => assert!(has != read || read != kept || has != kept, "{case}"),
                        Verdict::NeedDigest => assert!(has != kept && told.md5.is_none(), "{case}"),
                        Verdict::Unproved => {
                            let uncompared = source.tells_digest() && source.matches_flight(&told).is_none();
                            let unknown = uncompared || stored.matches_flight(&told).is_none();
                            assert!(source.across(&stored).is_none() && unknown, "{case}");
                        }
                    }
                    // What can be seen to differ is never taken for equal.
                    if source.matches_flight(&told) == Some(false)
                        || stored.matches_flight(&told) == Some(false)
                    {
                        assert!(matches!(verdict, Verdict::Differs(_)), "{case}");
                    }
                }
            }
        }
    }
    assert_eq!(verdicts, 8 * 24 * 24 * 13);
}

#[test]
fn sec_f02_checksum_of_the_target_alone_does_not_verify_source_bytes() {
    let source = ReportedDigests { etag: etags(0)[0].clone(), sums: Checksums::default() };
    let stored = ReportedDigests { etag: etags(1)[0].clone(), sums: Checksums::default() };
    assert_eq!(compare_digests(&source, None, &stored), Verdict::NeedDigest);
    assert!(matches!(compare_digests(&source, Some(digests(1)), &stored), Verdict::Differs(_)));
}

#[test]
fn obj_03_part_with_opaque_etag_is_not_compared() {
    let part =
        |opaque| UploadedPart { number: 1, etag: "0".repeat(32), size: 1, opaque, crc64: None, md5: None };
    let wanted = DigestSet { md5: true, ..DigestSet::default() };
    assert!(part_differs(&part(false), Some(digests(0))).is_some());
    assert!(part_differs(&part(true), Some(digests(0))).is_none());
    assert!(parts_compared(&[part(false)], wanted) && !parts_compared(&[part(true)], wanted));
    assert_eq!(etag_of_parts(&[part(true)]), None);
}

#[test]
fn parts_verify_an_object_only_if_the_source_was_compared() {
    let piece = |bytes: &[u8]| UploadedPart {
        number: 1,
        etag: String::new(),
        size: bytes.len() as u64,
        opaque: true,
        crc64: Some(storage::checksum::crc64_of(bytes)),
        md5: None,
    };
    let parts = [piece(&BYTES[0][..4]), piece(&BYTES[0][4..])];
    let seen = whole_of(&parts);
    assert_eq!(seen.sums.crc64_nvme, digests(0).sums.crc64_nvme);
    let [md5, _, opaque, _] = etags(0);
    let with_crc = |etag: &Etag, content| ReportedDigests {
        etag: etag.clone(),
        sums: Checksums { crc64_nvme: digests(content).sums.crc64_nvme, ..Checksums::default() },
    };
    let alone = |etag: &Etag| ReportedDigests { etag: etag.clone(), sums: Checksums::default() };
    assert_eq!(with_crc(&md5, 0).matches_flight(&seen), Some(true));
    assert_eq!(with_crc(&md5, 1).matches_flight(&seen), Some(false));
    assert_eq!(of_parts(Proof::Digest, &with_crc(&md5, 0), &seen), Proof::Digest);
    assert_eq!(of_parts(Proof::Digest, &alone(&md5), &seen), Proof::Size);
    assert_eq!(of_parts(Proof::Digest, &alone(&opaque), &seen), Proof::Digest);
    assert_eq!(of_parts(Proof::Etag, &alone(&md5), &seen), Proof::Etag);
    let unknown = [parts[0].clone(), UploadedPart { crc64: None, ..parts[1].clone() }];
    assert_eq!(whole_of(&unknown).sums, Checksums::default());
}

#[test]
fn composite_etag_proves_only_what_was_compared_with_it() {
    let bytes: [&[u8]; 2] = [&BYTES[0][..4], &BYTES[0][4..]];
    let md5 = |bytes: &[u8]| storage::Body::bytes(bytes.to_vec()).md5_in_memory().unwrap();
    let parts: Vec<UploadedPart> = (1..)
        .zip(bytes)
        .map(|(number, bytes)| UploadedPart {
            number,
            etag: String::new(),
            size: bytes.len() as u64,
            opaque: true,
            crc64: None,
            md5: Some(md5(bytes)),
        })
        .collect();
    let composite = Etag::Parts(storage::checksum::md5_of_parts(bytes.map(md5)), 2);
    assert_eq!(etag_in_flight(&parts).unwrap().proves(&composite), Some(true));
    let unknown = [parts[0].clone(), UploadedPart { md5: None, ..parts[1].clone() }];
    assert_eq!(etag_in_flight(&unknown), None);
    // Read as one, the composite of several parts cannot be computed, and the target's own digest says nothing of it.
    let source = |etag| ReportedDigests { etag, sums: Checksums::default() };
    let stored = ReportedDigests { etag: etags(0)[0].clone(), sums: Checksums::default() };
    assert_eq!(compare_digests(&source(composite), Some(digests(0)), &stored), Verdict::Unproved);
    // That of one part can.
    let of_one = |content| Etag::Parts(storage::checksum::md5_of_parts([digests(content).md5.unwrap()]), 1);
    assert_eq!(
        compare_digests(&source(of_one(0)), Some(digests(0)), &stored),
        Verdict::Proved(Proof::Digest)
    );
    assert!(matches!(compare_digests(&source(of_one(1)), Some(digests(0)), &stored), Verdict::Differs(_)));
}
