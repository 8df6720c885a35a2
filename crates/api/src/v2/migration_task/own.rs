//! `whimbrel`: what goes beyond the compatible migration API, in one object of its own that other services ignore.

use control::migrations::{MigrationError, MigrationReply};
use model::migration::{KEPT_COMMANDS, Libraries, Own};
use serde_json::{Value, json};
use wire::fields::Fields;

use crate::dcs::field_error;

/// All that may be written; what is misspelt must not be taken for granted.
const FIELDS: [&str; 3] = ["skip_commands", "leave_out_commands", "functions"];
/// Names of one list, and their length.
const NAMES: (usize, usize) = (100, 64);
const WORDS: [&str; 3] = ["stop", "replace", "skip"];

/// The object of a request.
pub(crate) fn read(f: &Fields<'_>) -> MigrationReply<Own> {
    let Some(own) = f.opt_object("whimbrel").map_err(field_error)? else { return Ok(Own::default()) };
    if let Some(name) = own.unknown(&FIELDS) {
        let why = format!("unknown field; supported fields are {}", FIELDS.join(", "));
        return Err(MigrationError::Field(own.name(name), why));
    }
    let names = own.opt_texts("skip_commands", NAMES.0, NAMES.1).map_err(field_error)?.unwrap_or_default();
    let skip_commands: Vec<String> = names.iter().map(|name| name.to_ascii_uppercase()).collect();
    if let Some(kept) = skip_commands.iter().find(|name| KEPT_COMMANDS.contains(&name.as_str())) {
        return Err(MigrationError::Field(own.name("skip_commands"), format!("`{kept}` cannot be skipped")));
    }
    let functions = match own.opt_one_of("functions", &WORDS).map_err(field_error)? {
        Some("replace") => Libraries::Replace,
        Some("skip") => Libraries::Skip,
        _ => Libraries::Stop,
    };
    let leave_out_commands = own.opt_bool("leave_out_commands").map_err(field_error)?.unwrap_or(false);
    Ok(Own { skip_commands, leave_out_commands, functions })
}

/// The object of a reply; none where nothing of it was asked for.
pub(crate) fn shown(own: &Own) -> Option<Value> {
    (*own != Own::default()).then(|| {
        json!({"skip_commands": own.skip_commands, "leave_out_commands": own.leave_out_commands, "functions": own.functions})
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(own: Value) -> MigrationReply<Own> {
        let body = json!({ "whimbrel": own });
        read(&Fields::root(body.as_object().unwrap()))
    }

    #[test]
    fn red_14_api_accepts_excluded_commands() {
        let own = asked(json!({"skip_commands": ["opinfo"], "functions": "skip"})).unwrap();
        assert_eq!(
            (own.skip_commands.as_slice(), own.functions),
            (&["OPINFO".to_owned()][..], Libraries::Skip)
        );
        assert_eq!(shown(&own).unwrap()["functions"], "skip");
        assert_eq!(shown(&Own::default()), None);
        for wrong in
            [json!({"skip_command": []}), json!({"skip_commands": ["multi"]}), json!({"functions": "x"})]
        {
            assert!(asked(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_of_operator_and_request_are_combined() {
        let of =
            |name: &str, functions| Own { skip_commands: vec![name.into()], functions, ..Own::default() };
        let all = of("A", Libraries::Stop).with(&of("B", Libraries::Skip), &of("C", Libraries::Replace));
        assert_eq!((all.skip_commands.join(" ").as_str(), all.functions), ("A B C", Libraries::Replace));
    }
}
