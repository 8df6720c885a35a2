//! `cargo x soak NAME`: the long-running tests, which are ignored unless they are asked for by their exact names.

use std::process::Command;

use crate::{Done, cargo, servers};

/// A long-running test, or several that belong together.
struct Soak {
    name: &'static str,
    help: &'static str,
    needs: Needs,
    run: Run,
}

/// What must be there before the tests start.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Nothing,
    /// The release build of `whimbrel`.
    Program,
    /// Installed Redis servers.
    Redis,
    /// The release build of `whimbrel` and all test servers, started.
    AllServers,
}

enum Run {
    /// Tests of one target, by their exact names.
    Tests { package: &'static str, target: &'static [&'static str], names: &'static [&'static str] },
    /// All fuzz targets: they are ordinary tests, which run longer here.
    Fuzz,
    /// A shell script.
    Script(&'static str),
}

const CLI: (&str, &[&str]) = ("whimbrel", &["--test", "main"]);
const REDIS: (&str, &[&str]) = ("redis_migration", &["--test", "main"]);

/// Seconds for each fuzz target.
const FUZZ_SECONDS: &str = "600";

/// Package, target and filter of the fuzz targets.
const FUZZ_TARGETS: [(&str, &[&str], &str); 8] = [
    ("redis_proto", &["--test", "main"], "fuzz::"),
    ("storage", &["--lib"], "fuzz_"),
    ("redis_migration", &["--lib"], "fuzz_"),
    ("control", &["--lib"], "fuzz_"),
    ("api", &["--lib"], "fuzz_"),
    ("object_migration", &["--lib"], "fuzz_"),
    ("config", &["--lib"], "fuzz_"),
    ("whimbrel", &["--bin", "whimbrel"], "fuzz_"),
];

const fn tests(
    name: &'static str,
    help: &'static str,
    needs: Needs,
    (package, target): (&'static str, &'static [&'static str]),
    names: &'static [&'static str],
) -> Soak {
    Soak { name, help, needs, run: Run::Tests { package, target, names } }
}

const SOAKS: [Soak; 17] = [
    tests(
        "sim",
        "[--seeds N] object tasks between stores with random faults",
        Needs::Nothing,
        ("runtime", &["--test", "sim"]),
        &["soak_every_key_is_right_in_100_000_seeds"],
    ),
    tests(
        "history",
        "[--runs N] states of a Redis target while the migration is interrupted",
        Needs::Redis,
        ("redis_migration", &["--test", "history"]),
        &["soak_target_shows_only_states_of_the_source_in_1000_runs"],
    ),
    tests(
        "split",
        "listings of 200,000 keys in five shapes are split evenly",
        Needs::Nothing,
        ("object_migration", &["--lib"]),
        &["ranges::scheduler::tests::five_key_distributions_are_split_evenly_without_loss"],
    ),
    tests(
        "stop",
        "stop requests to object tasks: latency and bytes that are read again",
        Needs::Program,
        CLI,
        &[
            "soak::soak_stop_request_takes_at_most_1_s",
            "soak::soak_c13_stops_of_large_objects_read_at_most_5_percent_again",
        ],
    ),
    tests(
        "kill",
        "`whimbrel copy` through 50 kills",
        Needs::Program,
        CLI,
        &["soak::soak_copy_through_50_kills_is_complete"],
    ),
    tests(
        "list",
        "a list of three million keys through kills",
        Needs::Program,
        CLI,
        &["soak::soak_key_list_of_300_mib_through_kills_is_complete"],
    ),
    tests(
        "memory",
        "memory for ten million keys and for objects of 4 GiB",
        Needs::Program,
        CLI,
        &["soak::soak_memory_is_bounded_for_many_keys_and_large_objects"],
    ),
    tests(
        "connections",
        "a known caller among 2,000 connections of strangers",
        Needs::Program,
        CLI,
        &["connections::soak_known_caller_is_answered_among_2000_strangers"],
    ),
    tests(
        "requests",
        "100,000 random requests over all routes",
        Needs::Program,
        CLI,
        &["fuzzed::soak_100_000_random_requests_are_answered"],
    ),
    tests(
        "kill-storms",
        "a Redis migration through kills and cut connections",
        Needs::AllServers,
        CLI,
        &["redis_soak::soak_each_change_is_applied_once_through_20_kills_and_cuts"],
    ),
    tests(
        "stalled-target",
        "a Redis target that does not answer for 60 s",
        Needs::AllServers,
        CLI,
        &["redis_soak::soak_target_that_stalls_for_60_s_costs_the_source_no_memory"],
    ),
    tests(
        "cutover",
        "20 cut-overs while the service is killed",
        Needs::AllServers,
        CLI,
        &["redis_soak::soak_20_cutovers_survive_service_kills"],
    ),
    tests(
        "large-values",
        "Redis values of 512 MiB",
        Needs::AllServers,
        CLI,
        &["redis_soak::soak_values_of_512_mib_are_copied_in_bounded_memory"],
    ),
    tests(
        "stop-latency",
        "stop requests to Redis migrations",
        Needs::AllServers,
        CLI,
        &["redis_soak::soak_stop_requests_end_each_phase_within_60_s"],
    ),
    tests(
        "versions",
        "Redis clusters of all versions",
        Needs::Redis,
        REDIS,
        &["cluster::soak_every_type_is_copied_between_clusters_of_all_versions"],
    ),
    tests(
        "interruptions",
        "random expiries while the migration is interrupted",
        Needs::Redis,
        REDIS,
        &["expiry::soak_random_expiries_are_right_through_interruptions"],
    ),
    Soak {
        name: "clean-machine",
        help: "clone, build and test in an empty container",
        needs: Needs::Nothing,
        run: Run::Script("tests/bare.sh"),
    },
];

const FUZZ: Soak =
    Soak { name: "fuzz", help: "ten minutes for each fuzz target", needs: Needs::Nothing, run: Run::Fuzz };

/// Names that soaks had before, which scripts may use.
const FORMER_NAMES: [(&str, &str); 7] = [
    ("bare", "clean-machine"),
    ("doors", "connections"),
    ("frozen", "stalled-target"),
    ("gaps", "interruptions"),
    ("great", "large-values"),
    ("rest", "stop-latency"),
    ("storms", "kill-storms"),
];

/// The soak of a name, or of a name that it had before.
fn find(name: &str) -> Option<&'static Soak> {
    let renamed = FORMER_NAMES.iter().find(|(before, _)| *before == name).map_or(name, |(_, now)| now);
    all().find(|soak| soak.name == renamed)
}

/// The names of all soaks with what they do, one a line.
pub(crate) fn list() -> String {
    let line = |soak: &Soak| format!("  {:<16}{}\n", soak.name, soak.help);
    all().map(line).collect()
}

fn all() -> impl Iterator<Item = &'static Soak> {
    SOAKS.iter().chain([&FUZZ])
}

/// Runs the soak that the first argument names.
pub(crate) fn run(args: &[&str]) -> Done {
    let usage = || format!("usage: cargo x soak NAME\n\n{}", list());
    let name = args.first().ok_or_else(usage)?;
    let soak = find(name).ok_or_else(|| format!("unknown soak `{name}`; the soaks are\n\n{}", list()))?;
    let mut variables = amount(soak.name, &args[1..])?;
    if matches!(soak.needs, Needs::Program | Needs::AllServers) {
        cargo(&["build", "--release", "-p", "whimbrel"], &[])?;
    }
    match soak.needs {
        Needs::Nothing | Needs::Program => {}
        Needs::Redis => variables.extend(servers::redis()?),
        Needs::AllServers => variables.extend(servers::start()?),
    }
    let done = match &soak.run {
        Run::Tests { package, target, names } => run_tests(package, target, names, &variables),
        Run::Fuzz => fuzz(),
        Run::Script(path) => script(path),
    };
    if soak.needs == Needs::AllServers {
        servers::stop();
    }
    done
}

/// The variable that says how much is run, from the arguments behind the name.
fn amount(name: &str, args: &[&str]) -> Result<Vec<(String, String)>, String> {
    let variable = match (name, args) {
        (_, []) => return Ok(Vec::new()),
        ("sim", ["--seeds", _]) => "WHIMBREL_SIM_SEEDS",
        ("history", ["--runs", _]) => "WHIMBREL_HISTORY_RUNS",
        ("sim", _) => return Err("usage: cargo x soak sim [--seeds N]".to_owned()),
        ("history", _) => return Err("usage: cargo x soak history [--runs N]".to_owned()),
        (name, _) => return Err(format!("usage: cargo x soak {name}")),
    };
    let number = args[1];
    number.parse::<u64>().map_err(|_| format!("`{number}` is not a valid number"))?;
    Ok(vec![(variable.to_owned(), number.to_owned())])
}

fn run_tests(package: &str, target: &[&str], names: &[&str], variables: &[(String, String)]) -> Done {
    let mut args = vec!["test", "--release", "-p", package];
    args.extend(target);
    args.extend(["--", "--include-ignored", "--exact", "--nocapture", "--test-threads=1"]);
    args.extend(names);
    cargo(&args, variables)
}

fn fuzz() -> Done {
    let variables = [("WHIMBREL_FUZZ_SECONDS".to_owned(), FUZZ_SECONDS.to_owned())];
    for (package, target, filter) in FUZZ_TARGETS {
        let mut args = vec!["test", "--release", "-p", package];
        args.extend(target);
        args.extend(["--", "--nocapture", filter]);
        cargo(&args, &variables)?;
    }
    Ok(())
}

fn script(path: &str) -> Done {
    let status = Command::new("bash").arg(path).status().map_err(|e| format!("bash: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("failed: {path}")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]
mod tests {
    use std::path::Path;

    use super::*;

    fn sources(dir: &Path, found: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    fn all_sources() -> String {
        let mut found = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates"), &mut found);
        found
    }

    /// A filter that matches no test would pass without running anything.
    #[test]
    fn soak_tests_of_the_table_exist() {
        let sources = all_sources();
        for soak in all() {
            let Run::Tests { names, .. } = &soak.run else { continue };
            for name in *names {
                let function = name.rsplit("::").next().unwrap();
                assert!(sources.contains(&format!("fn {function}()")), "{}: no test {name}", soak.name);
            }
        }
    }

    #[test]
    fn ignored_tests_name_a_soak_of_the_table() {
        for reason in all_sources().split("#[ignore = \"").skip(1) {
            let reason = reason.split('"').next().unwrap();
            let known = reason.strip_prefix("soak: cargo x soak ");
            assert!(known.is_some_and(|name| all().any(|soak| soak.name == name)), "{reason}");
        }
    }

    #[test]
    fn former_names_lead_to_soaks_of_the_table() {
        for (before, now) in FORMER_NAMES {
            assert_eq!(find(before).map(|soak| soak.name), Some(now));
        }
    }

    #[test]
    fn unknown_soak_lists_all_names() {
        let message = run(&["unknown"]).unwrap_err();
        assert!(all().all(|soak| message.contains(soak.name)), "{message}");
    }

    #[test]
    fn amount_is_taken_by_sim_and_history_only() {
        assert_eq!(amount("sim", &["--seeds", "7"]).unwrap(), [("WHIMBREL_SIM_SEEDS".into(), "7".into())]);
        assert!(amount("sim", &["--seeds", "x"]).is_err());
        assert!(amount("kill", &["--seeds", "7"]).is_err());
    }
}
