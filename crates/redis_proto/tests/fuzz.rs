//! Every reader against damaged and invented input: values or errors, and never a panic, an endless loop or memory without
//! bound. A second for each in CI; `cargo x soak fuzz` takes ten minutes for each and tells how many inputs that were.
//!
//! The corpora are the dumps in testdata, what is read out of them, and what fuzzing found before.

use redis_proto::rdb::decode::elements;
use redis_proto::rdb::{Family, Item, Parser, dump};
use redis_proto::resp::{Commands, Replies, command};
use redis_proto::{aof, lzf};

use testkit::fuzz::{MAX_INPUT_BYTES, fuzz};

use crate::fixtures::dumps;

fn files() -> Vec<Vec<u8>> {
    let read = |path: &std::path::PathBuf| std::fs::read(path).unwrap();
    dumps().iter().map(read).map(|mut bytes| (bytes.truncate(MAX_INPUT_BYTES), bytes).1).collect()
}

/// Payloads of every value of the dumps.
fn payloads() -> Vec<(Family, Vec<u8>)> {
    let mut all = Vec::new();
    for bytes in files() {
        let mut parser = Parser::new(u64::MAX);
        parser.push(&bytes);
        let (family, version) = (parser.version().0, parser.version().1);
        while let Ok(Some(item)) = parser.next_item() {
            if let Item::Value(head, raw) = item {
                let mut payload = Vec::new();
                dump::payload(&mut payload, head.kind, raw, version);
                all.push((family, payload));
            }
        }
    }
    all
}

#[test]
fn rdb_values_never_panic() {
    fuzz("rdb", &files(), |input, random| {
        let mut parser = Parser::new(if random.bool() { u64::MAX } else { random.u64(..200) });
        let mut rest = input;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(random.usize(1..=rest.len().min(4096)));
            parser.push(piece);
            rest = behind;
            loop {
                match parser.next_item() {
                    Ok(Some(Item::Value(head, raw))) => {
                        let _ = elements(head.kind, raw, |_| Ok(()));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        assert!(error.offset <= input.len() as u64, "{error}");
                        return;
                    }
                }
            }
        }
    });
}

#[test]
fn restore_payloads_never_panic() {
    let corpus: Vec<Vec<u8>> = payloads().into_iter().map(|(_, payload)| payload).collect();
    fuzz("dump", &corpus, |input, random| {
        let family = if random.bool() { Family::Redis } else { Family::Valkey };
        // With its checksum made right, so that what is behind it is reached.
        let mut input = input.to_vec();
        if input.len() > 8 && random.u8(..4) > 0 {
            let at = input.len() - 8;
            let sum = dump::crc64(&input[..at]).to_le_bytes();
            input[at..].copy_from_slice(&sum);
        }
        if let Ok((kind, raw)) = dump::open(family, &input) {
            let mut bytes = 0;
            let _ = elements(kind, raw, |_| {
                bytes += 1;
                Ok(())
            });
        }
    });
}

#[test]
fn commands_never_panic() {
    let mut corpus = Vec::new();
    for line in [
        "SET a 1",
        "MULTI",
        "EXEC",
        "PING",
        "MSET a 1 b 2 c 3",
        "EVAL x 2 a b",
        "XADD s * f v",
        "ZUNIONSTORE d 2 a b",
        "REPLCONF GETACK *",
        "SORT a STORE b",
    ] {
        let mut out = Vec::new();
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        command(&mut out, &words);
        command(&mut out, &words);
        corpus.push(out);
    }
    corpus.push(b"\r\n\r\nPING\r\nSET a 1\r\n#TS:1\r\n*1\r\n$4\r\nPING\r\n".to_vec());
    fuzz("commands", &corpus, |input, random| {
        let mut commands = Commands::starting_at(0);
        let mut rest = input;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(random.usize(1..=rest.len().min(64)));
            commands.push(piece);
            rest = behind;
            loop {
                match commands.next_command() {
                    Ok(Some(command)) => {
                        let args: Vec<&[u8]> = command.args().collect();
                        let _ = redis_proto::command::keys(&args);
                    }
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
    });
}

#[test]
fn replies_never_panic() {
    let corpus = [
        b"+OK\r\n-ERR x\r\n:12\r\n$3\r\nabc\r\n$-1\r\n*2\r\n:1\r\n*0\r\n".to_vec(),
        b"%1\r\n+a\r\n:1\r\n~2\r\n+a\r\n+b\r\n>1\r\n+x\r\n_\r\n#t\r\n,1.5\r\n(123\r\n=7\r\ntxt:abc\r\n"
            .to_vec(),
        b"*3\r\n*2\r\n+a\r\n$0\r\n\r\n*1\r\n*1\r\n*1\r\n:1\r\n-E\r\n".to_vec(),
    ];
    fuzz("replies", &corpus, |input, random| {
        let mut replies = Replies::default();
        let mut rest = input;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(random.usize(1..=rest.len().min(64)));
            replies.push(piece);
            rest = behind;
            loop {
                match replies.next_reply() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
    });
}

#[test]
fn manifests_and_lzf_never_panic() {
    let corpus = [
        b"file a.base.rdb seq 1 type b\nfile a.incr.aof seq 2 type i startoffset 5\n# note\n".to_vec(),
        b"\x00a\xe0\x00\x00\x01bc\x20\x05".to_vec(),
        vec![0x1f; 300],
    ];
    fuzz("manifest and lzf", &corpus, |input, random| {
        let _ = aof::manifest(input);
        let _ = aof::form(input);
        let len = random.u64(..100_000);
        if let Ok(text) = lzf::expand(input, len) {
            assert_eq!(text.len() as u64, len);
        }
    });
}
