use super::*;
use crate::target::transaction::{EncodedTransactions, Grouping, SET_VALUE_MAX, TransactionEncoder};

const NOW: i64 = 1_700_000_000_000;

fn names() -> KeyNames {
    KeyNames {
        id: "t".into(),
        checkpoint: b"M".to_vec(),
        suspects: b"D".to_vec(),
        scripts: b"S".to_vec(),
        writer_name: b"W".to_vec(),
        fencing_token: b"O".to_vec(),
        existing: b"E".to_vec(),
        failed: b"F".to_vec(),
    }
}

fn applying(route: Route) -> Applier {
    Applier::new(route, Some(names()), &Position { replid: "r".into(), offset: 0 }, 0)
}

/// The transactions of one server.
fn server(names: Option<KeyNames>) -> EncodedTransactions {
    EncodedTransactions {
        encoder: TransactionEncoder::new(Grouping::Transactions, names, false),
        out: Vec::new(),
    }
}

fn close(applier: &Applier, out: &mut EncodedTransactions) -> Option<u64> {
    let text = applier.checkpoint().map(|checkpoint| checkpoint.text());
    out.encoder.close(text.as_deref(), &mut out.out).map(|closed| closed.replies)
}

fn feed(applier: &mut Applier, lines: &[&str], out: &mut EncodedTransactions) -> Result<()> {
    let mut commands = Commands::starting_at(applier.offset());
    for line in lines {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut raw = Vec::new();
        redis_proto::resp::command(&mut raw, &args);
        commands.push(&raw);
        let end = commands.offset() + raw.len() as u64;
        let command = commands.next_command().unwrap().unwrap();
        applier.apply(&command, end, out, NOW)?;
    }
    Ok(())
}

/// What was written, one command a line.
fn lines(out: &EncodedTransactions) -> Vec<String> {
    let mut commands = Commands::starting_at(0);
    commands.push(&out.out);
    let mut lines = Vec::new();
    while let Some(command) = commands.next_command().unwrap() {
        let words: Vec<String> = command.args().map(|a| String::from_utf8_lossy(a).into_owned()).collect();
        lines.push(words.join(" "));
    }
    lines
}

#[test]
fn transaction_ends_with_the_checkpoint_after_its_commands() {
    let (mut applier, mut out) = (applying(Route::default()), server(Some(names())));
    feed(&mut applier, &["SELECT 2", "MULTI", "INCR a", "PING"], &mut out).unwrap();
    assert!(close(&applier, &mut out).is_none(), "the source's own transaction is not divided");
    feed(&mut applier, &["INCR b", "EXEC"], &mut out).unwrap();
    let offset = applier.offset();
    assert_eq!(close(&applier, &mut out), Some(7));
    let mark = format!("SET M applied r {offset} 2 XX");
    assert_eq!(lines(&out), ["MULTI", "SELECT 2", "INCR a", "INCR b", "SELECT 0", &mark, "EXEC"]);
    assert!(close(&applier, &mut out).is_none());
    feed(&mut applier, &["PING"], &mut out).unwrap();
    assert!(!out.encoder.is_open());
}

#[test]
fn server_administration_commands_are_not_forwarded() {
    let (mut from_server, mut out) = (applying(Route::default()), server(Some(names())));
    feed(&mut from_server, &["REPLICAOF h 1", "CONFIG SET a b", "FLUSHALL", "INCR a"], &mut out).unwrap();
    assert_eq!(lines(&out), ["MULTI", "SELECT 0", "FLUSHALL", "INCR a"]);
    assert_eq!(from_server.filtered.len(), 2);
    let mut file = Applier::new(Route::default(), None, &Position { replid: "r".into(), offset: 0 }, 0);
    let mut out = server(None);
    let given = [
        "FLUSHALL",
        "SHUTDOWN",
        "EVAL x 0",
        "NEWER a",
        "FUNCTION FLUSH",
        "BF.ADD a b",
        "FUNCTION LOAD x",
        "INCR a",
    ];
    feed(&mut file, &given, &mut out).unwrap();
    assert_eq!(lines(&out), ["MULTI", "SELECT 0", "BF.ADD a b", "FUNCTION LOAD REPLACE x", "INCR a"]);
    let anywhere = Position { replid: "r".into(), offset: 0 };
    let mut file = Applier::new(Route::default(), None, &anywhere, 0).accepting_all_commands();
    let mut out = server(None);
    feed(&mut file, &given, &mut out).unwrap();
    let want = [
        "MULTI",
        "SELECT 0",
        "FLUSHALL",
        "EVAL x 0",
        "NEWER a",
        "FUNCTION FLUSH",
        "BF.ADD a b",
        "FUNCTION LOAD REPLACE x",
        "INCR a",
    ];
    assert_eq!(lines(&out), want);
}

#[test]
fn cluster_wide_command_of_one_master_is_not_applied_to_others() {
    for line in ["RESTORE-ASKING k 0 x ABSTTL", "CLUSTER SYNCSLOTS FINISH", "flushall", "FLUSHDB"] {
        let (mut applier, mut out) =
            (applying(Route::default()).for_cluster_master(MasterRank::First), server(Some(names())));
        assert_eq!(feed(&mut applier, &[line], &mut out).unwrap_err().reason, Reason::FullResync, "{line}");
        assert!(out.out.is_empty());
    }
    for (master_rank, written) in [(MasterRank::First, 3), (MasterRank::Other, 0)] {
        let (mut applier, mut out) =
            (applying(Route::default()).for_cluster_master(master_rank), server(Some(names())));
        feed(&mut applier, &["FUNCTION LOAD x", "CLUSTER MYID"], &mut out).unwrap();
        assert_eq!(lines(&out).len(), written);
    }
}

#[test]
fn keys_are_checked_before_changes_while_the_target_is_behind() {
    let route = Route { db_map: Route::parse_map("1=5").unwrap(), ..Route::default() };
    let (mut applier, mut out) = (applying(route), server(Some(names())));
    applier.expiry_guard.start(true, true);
    feed(&mut applier, &["SELECT 1", "INCR k", "SET l 1", "MOVE k 1", "RENAME k l"], &mut out).unwrap();
    let script = String::from_utf8_lossy(crate::operation::CHECK_SCRIPT).into_owned();
    let written: Vec<String> = lines(&out).iter().map(|line| line.replace(&script, "*")).collect();
    let want = [
        "MULTI",
        "SELECT 5",
        "EVAL * 2 D k 5 600000 0 1 1:k",
        "INCR k",
        "SET l 1",
        "EVAL * 2 D k 5 600000 1 2 1:k 1:k",
        "MOVE k 5",
        "EVAL * 3 D k l 5 600000 1 2 1:k 1:l RENAME k l",
    ];
    assert_eq!(written, want);
    assert_eq!(applier.commands, 4);
}

#[test]
fn databases_are_mapped_and_indivisible_commands_are_rejected() {
    let route = Route { db_map: Route::parse_map("1=5").unwrap(), ..Route::default() };
    let (mut applier, mut out) = (applying(route), server(Some(names())));
    feed(&mut applier, &["SELECT 1", "SET a 1", "MOVE a 1", "COPY a b DB 1", "SWAPDB 0 1"], &mut out)
        .unwrap();
    let want = ["SELECT 5", "SET a 1", "MOVE a 5", "COPY a b DB 5", "SWAPDB 0 5"];
    // Reserved keys stay in their database.
    let back =
        ["MOVE D 0", "MOVE S 0", "MOVE O 0", "MOVE E 0", "MOVE F 0", "MOVE whimbrel:redis:claims 0", "DEL M"];
    assert_eq!(lines(&out)[1..], [&want[..], &back].concat());
    assert!(feed(&mut applier, &["FLUSHALL"], &mut out).is_err());
    let route = Route { include: vec!["a*".into()], ..Route::default() };
    let (mut applier, mut out) = (applying(route), server(Some(names())));
    feed(&mut applier, &["SET b 1", "DEL a b", "INCR a"], &mut out).unwrap();
    assert_eq!(lines(&out)[1..], ["SELECT 0", "DEL a", "INCR a"]);
    for wrong in ["RENAME a b", "FLUSHDB", "FLUSHALL"] {
        assert_eq!(feed(&mut applier, &[wrong], &mut out).unwrap_err().kind, Kind::Unsupported, "{wrong}");
    }
}

#[test]
fn consecutive_plain_sets_become_one_command() {
    let (mut applier, mut out) = (applying(Route::default()), server(Some(names())));
    let long = format!("SET f {}", "x".repeat(SET_VALUE_MAX));
    let given =
        ["SET a 1", "set b 2", "SET a 3", "SET c 4 PX 9", "SET d 5", "SELECT 1", "SET e 6", &long, "SET g 7"];
    feed(&mut applier, &given, &mut out).unwrap();
    let offset = applier.offset();
    assert_eq!(close(&applier, &mut out), Some(12));
    let mark = format!("SET M applied r {offset} 1 XX");
    let want = [
        "MULTI",
        "SELECT 0",
        "MSET a 1 b 2 a 3",
        "SET c 4 PX 9",
        "SET d 5",
        "SELECT 1",
        "SET e 6",
        &long,
        "SET g 7",
        "SELECT 0",
        &mark,
        "EXEC",
    ];
    assert_eq!(lines(&out), want);
    assert_eq!(applier.commands, 8);
    let cluster = vec!["SET k v"; 65];
    let mut out = server(Some(names()));
    feed(&mut applier, &cluster, &mut out).unwrap();
    out.encoder.abandon(&mut out.out);
    assert!(out.out.is_empty());
    feed(&mut applier, &cluster, &mut out).unwrap();
    close(&applier, &mut out).unwrap();
    let written = lines(&out);
    assert_eq!((written.len(), &written[3][..]), (7, "SET k v"));
    assert_eq!(written[2].split(' ').count(), 129);
}

#[test]
fn flush_commands_are_forwarded() {
    let (mut applier, mut out) = (applying(Route::default()), server(Some(names())));
    feed(&mut applier, &["FLUSHALL", "SELECT 1", "FLUSHDB"], &mut out).unwrap();
    assert_eq!(lines(&out), ["MULTI", "SELECT 0", "FLUSHALL", "SELECT 1", "FLUSHDB"]);
}

#[test]
fn msetex_is_applied_key_by_key() {
    let route = Route { exclude: vec!["secret*".into()], ..Route::default() };
    let (mut applier, mut out) = (applying(route), server(Some(names())));
    let given = ["MSETEX 3 a 1 secret 2 b 3 NX PXAT 9000000000000", "MSETEX 1 secret 1 EX 5"];
    feed(&mut applier, &given, &mut out).unwrap();
    let want = ["MULTI", "SELECT 0", "SET a 1 PXAT 9000000000000", "SET b 3 PXAT 9000000000000"];
    assert_eq!(lines(&out), want);
}

#[test]
fn databases_that_become_one_are_rejected_when_they_are_selected() {
    let route = Route { db_map: Route::parse_map("5=0").unwrap(), ..Route::default() };
    let (mut applier, mut out) = (applying(route).with_source_dbs(&[0]), server(Some(names())));
    feed(&mut applier, &["SELECT 0", "SET a 1"], &mut out).unwrap();
    let refused = feed(&mut applier, &["SELECT 5"], &mut out).unwrap_err();
    assert!(refused.message.contains("databases 0 and 5 would both become 0"), "{refused}");
}

#[test]
fn other_keys_of_a_command_about_reserved_keys_are_applied() {
    let (mut applier, mut out) = (applying(Route::default()), server(Some(names())));
    let given = ["DEL whimbrel:redis:foo u v", "MSET whimbrel:redis:foo 1 w 5", "SET whimbrel:redis:foo 1"];
    feed(&mut applier, &given, &mut out).unwrap();
    assert_eq!(lines(&out), ["MULTI", "SELECT 0", "DEL u v", "MSET w 5"]);
}
