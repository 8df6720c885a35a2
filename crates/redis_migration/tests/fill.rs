//! Something of everything that a server can hold.

use redis_proto::resp::{Reply, command};
use testkit::redis::Redis;

/// Fills a server with all types, small and large, in several databases; except what its version does not support.
pub(crate) fn fill(redis: &Redis, random: u64) {
    let mut to = redis.connect();
    let streams = !matches!(to.call(&[b"COMMAND", b"INFO", b"XADD"]).array(), Some([Reply::Nil]) | None);
    let mut random = fastrand::Rng::with_seed(random);
    for db in [0, 1, 15] {
        to.run(&format!("SELECT {db}"));
        let mut script = Script::default();
        script.strings(&mut random);
        script.collections();
        if streams {
            script.streams();
        }
        script.expiries();
        for (i, reply) in to.many(&script.out, script.count).into_iter().enumerate() {
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

/// Commands that are sent together.
#[derive(Default)]
struct Script {
    out: Vec<u8>,
    count: usize,
}

impl Script {
    fn put(&mut self, args: &[&[u8]]) {
        command(&mut self.out, args);
        self.count += 1;
    }

    fn line(&mut self, line: &str) {
        self.put(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
    }

    fn strings(&mut self, random: &mut fastrand::Rng) {
        for i in 0..200 {
            self.put(&[b"SET", format!("s:{i}").as_bytes(), &vec![random.u8(..); random.usize(..500)]]);
        }
        self.line("SET number 12345");
        self.line("SET negative -7");
        self.put(&[b"SET", b"empty", b""]);
        self.put(&[b"SET", &[0, 255, b'\r', b'\n', 128], &[0; 100]]);
        self.put(&[b"SET", b"compressed", &vec![b'c'; 20_000]]);
        self.line("SETRANGE large 3000000 end");
    }

    fn collections(&mut self) {
        for (size, name) in [(5, "small"), (700, "large")] {
            for i in 0..size {
                let (item, score) =
                    (format!("{}-{i}", "x".repeat(i % 90)), format!("{}", i as f64 * 1.7 - 300.0));
                self.line(&format!("RPUSH list:{name} {item}"));
                self.line(&format!("SADD set:{name} {item}"));
                self.line(&format!("SADD ints:{name} {}", i * 70_000));
                self.line(&format!("ZADD zset:{name} {score} {item}"));
                self.line(&format!("HSET hash:{name} {item} {score}"));
            }
        }
        self.line("ZADD zset:odd inf most -inf least 5e-324 tiny");
    }

    fn streams(&mut self) {
        for i in 0..300u32 {
            self.line(&format!("XADD stream {}-{} n {i} other field", 1000 + i / 3, i % 3));
        }
        self.line("XGROUP CREATE stream readers 0");
        self.line("XREADGROUP GROUP readers alice COUNT 20 STREAMS stream >");
        self.line("XREADGROUP GROUP readers bob COUNT 5 STREAMS stream >");
        self.line("XACK stream readers 1000-0 1001-1");
        self.line("XDEL stream 1050-1");
        self.line("XGROUP CREATE bare waiting $ MKSTREAM");
    }

    fn expiries(&mut self) {
        // Without streams there is none to expire, which is no error.
        for line in ["s:1 4000000000123", "list:small 3999999999999", "stream 4100000000000"] {
            self.line(&format!("PEXPIREAT {line}"));
        }
    }
}
