//! Something of everything that a server can hold.

use redis_proto::resp::{Reply, command};
use testkit::redis::Redis;

/// Fills a server with all types, small and large, in several databases; what its version does not know is left out.
pub(crate) fn fill(redis: &Redis, random: u64) {
    let mut to = redis.connect();
    let streams = !matches!(to.call(&[b"COMMAND", b"INFO", b"XADD"]).array(), Some([Reply::Nil]) | None);
    let mut random = fastrand::Rng::with_seed(random);
    for db in [0, 1, 15] {
        to.run(&format!("SELECT {db}"));
        let mut out = Vec::new();
        let mut n = 0;
        let mut put = |args: &[&[u8]]| {
            command(&mut out, args);
            n += 1;
        };
        for i in 0..200 {
            put(&[b"SET", format!("s:{i}").as_bytes(), &vec![random.u8(..); random.usize(..500)]]);
        }
        put(&[b"SET", b"number", b"12345"]);
        put(&[b"SET", b"negative", b"-7"]);
        put(&[b"SET", b"empty", b""]);
        put(&[b"SET", &[0, 255, b'\r', b'\n', 128], &[0; 100]]);
        put(&[b"SET", b"compressed", &vec![b'c'; 20_000]]);
        put(&[b"SETRANGE", b"large", b"3000000", b"end"]);
        for (size, name) in [(5, "small"), (700, "large")] {
            for i in 0..size {
                let (item, score) =
                    (format!("{}-{i}", "x".repeat(i % 90)), format!("{}", i as f64 * 1.7 - 300.0));
                put(&[b"RPUSH", format!("list:{name}").as_bytes(), item.as_bytes()]);
                put(&[b"SADD", format!("set:{name}").as_bytes(), item.as_bytes()]);
                put(&[b"SADD", format!("ints:{name}").as_bytes(), (i * 70_000).to_string().as_bytes()]);
                put(&[b"ZADD", format!("zset:{name}").as_bytes(), score.as_bytes(), item.as_bytes()]);
                put(&[b"HSET", format!("hash:{name}").as_bytes(), item.as_bytes(), score.as_bytes()]);
            }
        }
        put(&[b"ZADD", b"zset:odd", b"inf", b"most", b"-inf", b"least", b"5e-324", b"tiny"]);
        for i in 0..if streams { 300u32 } else { 0 } {
            let (id, value) = (format!("{}-{}", 1000 + i / 3, i % 3), format!("{i}"));
            put(&[b"XADD", b"stream", id.as_bytes(), b"n", value.as_bytes(), b"other", b"field"]);
        }
        if streams {
            put(&[b"XGROUP", b"CREATE", b"stream", b"readers", b"0"]);
            put(&[
                b"XREADGROUP",
                b"GROUP",
                b"readers",
                b"alice",
                b"COUNT",
                b"20",
                b"STREAMS",
                b"stream",
                b">",
            ]);
            put(&[b"XREADGROUP", b"GROUP", b"readers", b"bob", b"COUNT", b"5", b"STREAMS", b"stream", b">"]);
            put(&[b"XACK", b"stream", b"readers", b"1000-0", b"1001-1"]);
            put(&[b"XDEL", b"stream", b"1050-1"]);
            put(&[b"XGROUP", b"CREATE", b"bare", b"waiting", b"$", b"MKSTREAM"]);
        }
        for (key, at) in
            [("s:1", 4_000_000_000_123u64), ("list:small", 3_999_999_999_999), ("stream", 4_100_000_000_000)]
        {
            // Without streams there is none to expire, which is no error.
            put(&[b"PEXPIREAT", key.as_bytes(), at.to_string().as_bytes()]);
        }
        for (i, reply) in to.many(&out, n).into_iter().enumerate() {
            assert!(!matches!(reply, Reply::Error(_)), "{redis:?}: command {i}: {reply:?}");
        }
        // What only some versions know.
        for line in
            ["HEXPIREAT hash:large 4000000000 FIELDS 1 -0", "HEXPIREAT hash:small 4000000000 FIELDS 1 x-1"]
        {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let _ = to.call(&args);
        }
    }
    let code = b"#!lua name=lib\nredis.register_function('f', function() return 7 end)";
    let _ = to.call(&[b"FUNCTION", b"LOAD", code]);
}
