//! JSON with line breaks.

/// Deeper values are not indented further.
const DEEPEST: usize = 20;

/// Returns the text with line breaks, if it is an object or a list. The text may be cut, or no JSON at all.
///
/// It only looks for strings and brackets, so that large numbers stay as they are, and no nesting is too deep.
pub(super) fn pretty(text: &str) -> String {
    if !text.starts_with(['{', '[']) {
        return text.to_owned();
    }
    let mut lines = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    let mut rest = text.chars().peekable();
    let break_line = |lines: &mut String, depth: usize| {
        lines.push('\n');
        lines.extend(std::iter::repeat_n("  ", depth.min(DEEPEST)));
    };
    while let Some(c) = rest.next() {
        if in_string {
            lines.push(c);
            in_string = is_escaped || c != '"';
            is_escaped = c == '\\' && !is_escaped;
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                lines.push(c);
            }
            '{' | '[' => {
                lines.push(c);
                let end = if c == '{' { '}' } else { ']' };
                if let Some(end) = rest.next_if_eq(&end) {
                    lines.push(end);
                } else {
                    depth += 1;
                    break_line(&mut lines, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut lines, depth);
                lines.push(c);
            }
            ',' => {
                lines.push(c);
                break_line(&mut lines, depth);
            }
            ':' => lines.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => lines.push(c),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn json_gets_line_breaks() {
        let text = r#"{"a":[1,{"b":"x, {\"y\": [\\"}],"c":{},"d":[],"e":18446744073709551615}"#;
        let lines = "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x, {\\\"y\\\": [\\\\\"\n    }\n  ],\n  \
            \"c\": {},\n  \"d\": [],\n  \"e\": 18446744073709551615\n}";
        assert_eq!(pretty(text), lines);
        assert_eq!(pretty(lines), lines);
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in ["", "(secret)", "\"a, b\"", "17", "null"] {
            assert_eq!(pretty(text), text);
        }
    }

    #[test]
    fn what_is_cut_or_deep_does_no_harm() {
        assert_eq!(pretty("{\"a\":\"b, …"), "{\n  \"a\": \"b, …");
        assert_eq!(pretty("[]]]"), "[]\n]\n]");
        assert!(pretty(&"[".repeat(16 << 10)).len() < 1 << 20);
    }
}
