//! The outcome file in forms that spreadsheets and query engines read: one row per settled object.

use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use model::error::{Error, Kind, Result};
use model::spec::ReportForm;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use storage::s3::list_parser::percent_decode;

use crate::ledger::outcome;

/// Rows that are held before they are written: the bound of memory.
const ROWS_PER_GROUP: usize = 20_000;

const SCHEMA: &str = "message outcome {
    REQUIRED BINARY outcome (UTF8);
    REQUIRED BINARY key (UTF8);
    REQUIRED BINARY encoded_key (UTF8);
    REQUIRED INT64 size;
    REQUIRED INT64 modified (TIMESTAMP(MILLIS,true));
    REQUIRED BINARY method (UTF8);
    REQUIRED BINARY result (UTF8);
}";

/// Columns, in order.
const COLUMNS: [&str; 7] = ["outcome", "key", "encoded_key", "size", "modified", "method", "result"];

/// How files of a form end.
pub fn extension(form: ReportForm) -> &'static str {
    match form {
        ReportForm::Csv => "csv",
        ReportForm::Parquet => "parquet",
    }
}

/// The media type of a form.
pub fn content_type(form: ReportForm) -> &'static str {
    match form {
        ReportForm::Csv => "text/csv; charset=utf-8",
        ReportForm::Parquet => "application/vnd.apache.parquet",
    }
}

/// One line of the outcome file.
#[derive(Debug, PartialEq)]
struct Row<'a> {
    outcome: &'static str,
    /// As the store has it; bytes that are no UTF-8 are replaced, `encoded_key` has them all.
    key: String,
    encoded_key: &'a str,
    size: i64,
    modified_ms: i64,
    method: &'a str,
    result: &'a str,
}

fn row(line: &str) -> Option<Row<'_>> {
    let mut columns = line.trim_end_matches('\n').split('\t');
    let outcome = match columns.next()? {
        "C" => "copied",
        "S" => "skipped",
        "F" => "failed",
        "G" => "gone",
        "D" => "deleted",
        "L" => "lost",
        _ => return None,
    };
    let encoded_key = columns.next()?;
    Some(Row {
        outcome,
        key: String::from_utf8_lossy(&percent_decode(encoded_key.as_bytes(), false)).into_owned(),
        encoded_key,
        size: columns.next()?.parse().ok()?,
        modified_ms: columns.next()?.parse().ok()?,
        method: columns.next()?,
        result: columns.next()?,
    })
}

/// Writes the first `len` bytes of the outcome file `from` as `to`. Where outcomes were lost, a row `lost` says so; its size is how
/// many bytes of the outcome file were lost.
///
/// # Errors
/// When either file fails; the message has its path.
pub fn write(from: &Path, len: u64, to: &Path, form: ReportForm) -> Result<()> {
    let failed = |path: &Path, e: &dyn std::fmt::Display| {
        Error::new(Kind::Internal, "report", format!("{}: {e}", path.display()))
    };
    let source = outcome::lines(from, len)?;
    let file = File::create(to).map_err(|e| failed(to, &e))?;
    let done = match form {
        ReportForm::Csv => write_csv(source, BufWriter::new(file)),
        ReportForm::Parquet => write_parquet(source, file),
    };
    done.map_err(|e| failed(to, &e))
}

type WriteResult = std::result::Result<(), Box<dyn std::error::Error>>;

/// RFC 4180, with a header.
fn write_csv(source: impl BufRead, mut out: impl Write) -> WriteResult {
    writeln!(out, "{}\r", COLUMNS.join(","))?;
    for line in source.lines() {
        let line = line?;
        let Some(r) = row(&line) else { continue };
        let quoted = |text: &str| {
            // A spreadsheet would compute what begins so.
            let mark = if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { "'" } else { "" };
            match text.contains([',', '"', '\n', '\r']) {
                true => format!("\"{mark}{}\"", text.replace('"', "\"\"")),
                false => format!("{mark}{text}"),
            }
        };
        let (key, result) = (quoted(&r.key), quoted(r.result));
        let Row { outcome, encoded_key, size, method, .. } = r;
        // All other characters that begin a formula are encoded already.
        let encoded_key = match encoded_key.strip_prefix('-') {
            Some(rest) => format!("%2D{rest}"),
            None => encoded_key.to_owned(),
        };
        let modified = rfc3339(r.modified_ms);
        writeln!(out, "{outcome},{key},{encoded_key},{size},{modified},{method},{result}\r")?;
    }
    out.flush()?;
    Ok(())
}

/// `YYYY-MM-DDThh:mm:ss.mmmZ`; empty for an unknown time.
fn rfc3339(ms: i64) -> String {
    if ms == 0 {
        return String::new();
    }
    let t = model::instant::utc(ms);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        ms.rem_euclid(1000)
    )
}

/// Columns of rows that are about to be written.
#[derive(Default)]
struct RowGroup {
    texts: [Vec<ByteArray>; 5],
    numbers: [Vec<i64>; 2],
}

fn write_parquet(source: impl BufRead, file: File) -> WriteResult {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::builder().build()))?;
    let mut held = RowGroup::default();
    for line in source.lines() {
        let line = line?;
        let Some(r) = row(&line) else { continue };
        let texts = [r.outcome, &r.key, r.encoded_key, r.method, r.result];
        for (column, text) in held.texts.iter_mut().zip(texts) {
            column.push(ByteArray::from(text));
        }
        for (column, number) in held.numbers.iter_mut().zip([r.size, r.modified_ms]) {
            column.push(number);
        }
        if held.numbers[0].len() >= ROWS_PER_GROUP {
            write_group(&mut writer, std::mem::take(&mut held))?;
        }
    }
    if !held.numbers[0].is_empty() {
        write_group(&mut writer, held)?;
    }
    writer.close()?;
    Ok(())
}

fn write_group(writer: &mut SerializedFileWriter<File>, held: RowGroup) -> WriteResult {
    let mut group = writer.next_row_group()?;
    let [outcome, key, encoded, method, result] = held.texts;
    let [size, modified] = held.numbers;
    enum Column {
        Text(Vec<ByteArray>),
        Number(Vec<i64>),
    }
    use Column::{Number, Text};
    for column in
        [Text(outcome), Text(key), Text(encoded), Number(size), Number(modified), Text(method), Text(result)]
    {
        let Some(mut out) = group.next_column()? else { break };
        match column {
            Text(texts) => out.typed::<ByteArrayType>().write_batch(&texts, None, None)?,
            Number(numbers) => out.typed::<Int64Type>().write_batch(&numbers, None, None)?,
        };
        out.close()?;
    }
    group.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    const OUTCOMES: &str = "C\ta%2Cb%0A%22\t5\t1768465800123\tetag\tequal\n\
                            D\tgone\t7\t0\tdelete\tdeleted\n";

    fn made(form: ReportForm) -> std::path::PathBuf {
        let dir = tempfile::tempdir().unwrap().keep();
        std::fs::write(dir.join("in.tsv"), OUTCOMES).unwrap();
        let to = dir.join(extension(form));
        write(&dir.join("in.tsv"), OUTCOMES.len() as u64, &to, form).unwrap();
        to
    }

    #[test]
    fn f14_report_states_lost_outcomes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("in.tsv"), dir.path().join("out.csv"));
        let report = || {
            write(&from, OUTCOMES.len() as u64, &to, ReportForm::Csv).unwrap();
            std::fs::read_to_string(&to).unwrap()
        };
        let missing = report();
        assert!(missing.lines().nth(1).is_some_and(|line| line.starts_with("lost,,,")), "{missing}");
        std::fs::write(&from, &OUTCOMES[..OUTCOMES.len() - 1]).unwrap();
        let short = report();
        assert!(short.contains("\r\ncopied,") && short.contains("\r\nlost,,,"), "{short}");
    }

    #[test]
    fn csv_quotes_special_characters() {
        let text = std::fs::read_to_string(made(ReportForm::Csv)).unwrap();
        assert_eq!(
            text,
            "outcome,key,encoded_key,size,modified,method,result\r\n\
             copied,\"a,b\n\"\"\",a%2Cb%0A%22,5,2026-01-15T08:30:00.123Z,etag,equal\r\n\
             deleted,gone,gone,7,,delete,deleted\r\n"
        );
    }

    #[test]
    fn sec_f34_csv_cells_are_never_formulas() {
        let lines = ["=1+1", "+1", "-1+cmd", "@SUM(A1)", "\tx", "=a,b", "a=b"].map(|key| {
            let mut line = String::from("F\t");
            storage::s3::sign::encode(&mut line, key.as_bytes(), true);
            line + "\t5\t0\tread\t=HYPERLINK(1)\n"
        });
        let mut out = Vec::new();
        write_csv(lines.concat().as_bytes(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<&str> = text.lines().skip(1).collect();
        assert!(rows[0].starts_with("failed,'=1+1,%3D1%2B1,5,,read,'=HYPERLINK(1)"), "{}", rows[0]);
        assert!(rows[2].starts_with("failed,'-1+cmd,%2D1%2Bcmd,"), "{}", rows[2]);
        assert!(rows[5].starts_with("failed,\"'=a,b\","), "{}", rows[5]);
        assert!(rows[6].starts_with("failed,a=b,a%3Db,"), "{}", rows[6]);
        for row in rows {
            let cells = row.split(',').map(|cell| cell.trim_start_matches('"'));
            assert!(cells.into_iter().all(|c| !c.starts_with(['=', '+', '-', '@', '\t'])), "{row}");
        }
        assert_eq!(percent_decode(b"%2D1%2Bcmd", false), b"-1+cmd");
    }

    #[test]
    fn parquet_report_is_read_by_the_parquet_reader() {
        let reader = SerializedFileReader::new(File::open(made(ReportForm::Parquet)).unwrap()).unwrap();
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(std::result::Result::unwrap).collect();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].get_string(1).unwrap(), "a,b\n\"");
        assert_eq!(rows[0].get_long(3).unwrap(), 5);
        assert_eq!(rows[1].get_string(0).unwrap(), "deleted");
    }
}
