//! Whether a text is a cron schedule, with the messages of the parser that upstream uses
//! (github.com/robfig/cron/v3, standard form of five fields).

/// Names and bounds of the five fields.
const FIELDS: [(&[&str], i64, i64); 5] = [
    (&[], 0, 59),
    (&[], 0, 23),
    (&[], 1, 31),
    (&["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1, 12),
    (&["sun", "mon", "tue", "wed", "thu", "fri", "sat"], 0, 6),
];

const DESCRIPTORS: [&str; 7] =
    ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Why the text is no schedule, if it is none.
pub(super) fn check(text: &str) -> Result<(), String> {
    let mut text = text.trim();
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        text = text.split_once(' ').map_or("", |(_, rest)| rest).trim();
    }
    if text.starts_with('@') {
        let known = DESCRIPTORS.contains(&text) || text.starts_with("@every ");
        return if known { Ok(()) } else { Err(format!("unrecognized descriptor: {text}")) };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let shown = fields.join(" ");
        return Err(format!("expected exactly 5 fields, found {}: [{shown}]", fields.len()));
    }
    for (field, bounds) in fields.iter().zip(FIELDS) {
        for part in field.split(',').filter(|part| !part.is_empty()) {
            range(part, bounds)?;
        }
    }
    Ok(())
}

fn range(text: &str, (names, least, most): (&[&str], i64, i64)) -> Result<(), String> {
    let steps: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = steps[0].split('-').collect();
    let number = |text: &str| {
        let known = names.iter().position(|name| text.eq_ignore_ascii_case(name));
        match known {
            Some(index) => Ok(i64::try_from(index).unwrap_or(most) + least),
            None => integer(text),
        }
    };
    let any = matches!(ends[0], "*" | "?");
    let (start, mut end) = match ends.as_slice() {
        _ if any => (least, most),
        [one] => (number(one)?, number(one)?),
        [start, end] => (number(start)?, number(end)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    match steps.as_slice() {
        [_] => {}
        [_, step] => {
            if integer(step)? == 0 {
                return Err(format!("step of range should be a positive number: {text}"));
            }
            if ends.len() == 1 {
                end = most;
            }
        }
        _ => return Err(format!("too many slashes: {text}")),
    }
    if start < least {
        return Err(format!("beginning of range ({start}) below minimum ({least}): {text}"));
    }
    if end > most {
        return Err(format!("end of range ({end}) above maximum ({most}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    Ok(())
}

fn integer(text: &str) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => Ok(number),
        Err(_) => Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {}: invalid syntax",
            crate::status::go_quote(text)
        )),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn schedules() {
        for (text, expected) in [
            ("*/5 0-6,12 ? jan-Mar sun", ""),
            ("@hourly", ""),
            ("@never", "unrecognized descriptor: @never"),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* 5-3 * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            (
                "x * * * *",
                r#"failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax"#,
            ),
        ] {
            assert_eq!(super::check(text).err().unwrap_or_default(), expected, "{text}");
        }
    }
}
