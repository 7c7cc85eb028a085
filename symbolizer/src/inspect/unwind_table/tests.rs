//! Rows of this test's own binary, as an inspection shows them.

use super::*;

fn own_binary() -> Vec<u8> {
    std::fs::read(std::env::current_exe().unwrap()).unwrap()
}

fn lines(format: Format) -> Vec<String> {
    let mut out = Vec::new();
    let bytes = own_binary();
    rows(bytes.as_slice(), |row| {
        write_row(&mut out, &row, format).unwrap();
    })
    .unwrap();
    let text = String::from_utf8(out).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn rows_ascend_and_are_complete_objects() {
    let mut previous = None;
    for line in lines(Format::Json) {
        let start = line.strip_prefix("{\"start\":").unwrap();
        let (start, rest) = start.split_once(',').unwrap();
        let start: u64 = start.parse().unwrap();
        assert!(previous.is_none_or(|previous| previous < start), "{line}");
        previous = Some(start);
        assert!(rest.starts_with("\"cfa\":\""), "{line}");
        for key in ["\"rbp\":\"", "\"ra\":\"", "\"signal\":"] {
            assert_eq!(rest.matches(key).count(), 1, "{line}");
        }
        assert!(line.ends_with('}'), "{line}");
    }
    assert!(previous.is_some(), "no row at all");
}

#[test]
fn a_functions_beginning_reads_as_expected() {
    let json = lines(Format::Json);
    let plain = ",\"cfa\":\"rsp+8\",\"rbp\":\"same\",\"ra\":\"cfa-8\",\"signal\":false}";
    assert!(json.iter().any(|line| line.ends_with(plain)));
    let pushed = ",\"cfa\":\"rsp+16\",\"rbp\":\"cfa-16\",\"ra\":\"cfa-8\",\"signal\":false}";
    assert!(json.iter().any(|line| line.ends_with(pushed)));
    let text = lines(Format::Text);
    assert_eq!(text.len(), json.len());
    assert!(
        text.iter()
            .any(|line| line.ends_with(" rsp+8      rbp=same     ra=cfa-8"))
    );
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    for (arguments, what) in [
        (&[][..], "FILE is missing"),
        (&["a", "--format", "xml"], "\"xml\" is no format"),
        (&["a", "b"], "unexpected argument"),
    ] {
        let arguments = arguments.iter().map(OsString::from);
        let Err(InspectError::Usage(message)) = Request::parse(arguments).map(|_request| ()) else {
            panic!("accepted");
        };
        assert!(message.contains(what), "{message}");
    }
}
