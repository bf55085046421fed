//! Members of JSON objects by name, as rules and defaults look for them: some hundred times in the
//! writing of one pod, and mostly for what is not there.

use serde_json::Value;

/// In up to so many members a name is looked for one by one. Hashing it takes 293 instructions and
/// this 105 in an object of eight members, most of which differ in length.
const SCANNED_MAX: usize = 16;

/// The member of that name.
pub(crate) fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let members = value.as_object()?;
    if members.len() > SCANNED_MAX {
        return members.get(name);
    }
    members.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
}

/// The same, to be changed.
pub(crate) fn member_mut<'v>(value: &'v mut Value, name: &str) -> Option<&'v mut Value> {
    let members = value.as_object_mut()?;
    if members.len() > SCANNED_MAX {
        return members.get_mut(name);
    }
    members.iter_mut().find(|(own, _)| *own == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    #[test]
    fn members_are_found_in_small_objects_and_large_ones() {
        for count in [0, 1, SCANNED_MAX, SCANNED_MAX + 1] {
            let members: Map<String, Value> =
                (0..count).map(|i| (i.to_string(), i.into())).collect();
            let mut object = Value::Object(members);
            for name in ["0", "3", "16", "x"] {
                let expected = object.get(name).cloned();
                assert_eq!(member(&object, name), expected.as_ref(), "{name} of {count}");
                assert_eq!(member_mut(&mut object, name).cloned(), expected, "{name} of {count}");
            }
        }
        assert_eq!(member(&json!([1]), "0"), None);
        assert_eq!(member_mut(&mut json!(null), "0"), None);
    }
}
