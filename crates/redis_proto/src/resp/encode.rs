//! Commands on their way out.

/// Appends a command of texts.
pub fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    header(out, b'*', args.len() as u64);
    for arg in args {
        text(out, arg);
    }
}

/// Appends one text.
pub fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    header(out, b'$', bytes.len() as u64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends `mark`, a number and the end of a line: what stands before an array or a text.
pub fn header(out: &mut Vec<u8>, mark: u8, n: u64) {
    let mut digits = [0; 20];
    let (mut at, mut n) = (digits.len(), n);
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.push(mark);
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    #[test]
    fn commands_are_encoded_as_bulk_strings() {
        let mut out = Vec::new();
        super::command(&mut out, &[b"SET", b"k\r\n", b""]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$0\r\n\r\n");
        out.clear();
        super::header(&mut out, b'$', 1234567890);
        assert_eq!(out, b"$1234567890\r\n");
    }
}
