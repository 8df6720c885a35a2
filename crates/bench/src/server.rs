//! `bench server PORT`: the in-process S3 server as a process of its own, with buckets to measure on.

use testkit::content::Content;
use testkit::{Options, S3Server};

const MIB: u64 = 1 << 20;

/// Serves until killed.
pub(crate) fn run(args: &[String]) {
    let port = args.first().map_or("19000", String::as_str);
    let options = Options { discard: true, log: false, threads: 2, ..Options::default() };
    let server = S3Server::start_on(&format!("127.0.0.1:{port}"), options);
    server.numbered("small", 20_000, 4096, None);
    server.numbered("middle", 2_000, MIB, None);
    server.numbered("list1m", 1_000_000, 4096, None);
    server.numbered("list10m", 10_000_000, 4096, None);
    let big = server.bucket("big");
    for i in 0..4 {
        big.put_with(&format!("big-{i}"), Content::Pattern(1024 * MIB), Some(16 * MIB), &[]);
    }
    let huge = server.bucket("huge");
    for i in 0..8 {
        huge.put_with(&format!("huge-{i}"), Content::Pattern(4096 * MIB), Some(16 * MIB), &[]);
    }
    server.bucket("empty");
    server.bucket("target");
    println!("{}", server.endpoint());
    loop {
        std::thread::park();
    }
}
