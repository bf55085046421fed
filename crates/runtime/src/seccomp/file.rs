//! Profiles in files: the form of OCI's `linux.seccomp`, with what Docker's adds to it (`archMap`,
//! and rules with conditions).

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

use super::abi::{MACHINE, NATIVE};
use super::profile::{
    ALLOW, Arg, EPERM, ERRNO, KILL_PROCESS, KILL_THREAD, LOG, Op, Profile, Rule, TRACE, TRAP,
};

/// Arguments that a call can have.
const ARGUMENTS: u8 = 6;
/// Flags of loading, by name.
const FLAGS: [(&str, u32); 3] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 1),
    ("SECCOMP_FILTER_FLAG_LOG", 2),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 4),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    arch_map: Vec<Family>,
    #[serde(default, deserialize_with = "nullable")]
    flags: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default, deserialize_with = "nullable")]
    names: Vec<String>,
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    args: Vec<Comparison>,
    #[serde(default, deserialize_with = "nullable")]
    includes: Condition,
    #[serde(default, deserialize_with = "nullable")]
    excludes: Condition,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Comparison {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// When a rule holds; the least kernel is not looked at, since all that we run on are newer.
#[derive(Default, Deserialize)]
struct Condition {
    #[serde(default, deserialize_with = "nullable")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    arches: Vec<String>,
}

/// What Go writes for an empty list.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Reads a profile for a container with these capabilities.
pub fn parse(body: &[u8], capabilities: &[&str]) -> Result<Profile, String> {
    let file: File = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let mut flags = None;
    for name in &file.flags {
        let known = FLAGS.iter().find(|(known, _)| known == name);
        *flags.get_or_insert(0) |= known.ok_or(format!("flag {name:?} is not supported"))?.1;
    }
    let native = file.arch_map.iter().filter(|family| family.architecture == NATIVE[0].name);
    let listed: Vec<&String> =
        native.flat_map(|family| &family.sub_architectures).chain(&file.architectures).collect();
    // Its own kind is always among them, and those of other machines do not matter here.
    let abis = NATIVE
        .iter()
        .enumerate()
        .filter(|(index, abi)| *index == 0 || listed.iter().any(|name| *name == abi.name))
        .map(|(_, abi)| abi)
        .collect();
    let mut rules = Vec::new();
    for entry in &file.syscalls {
        let all = entry.includes.caps.iter().all(|cap| capabilities.contains(&cap.as_str()));
        let none = !entry.excludes.caps.iter().any(|cap| capabilities.contains(&cap.as_str()));
        let here = |arches: &[String]| arches.iter().any(|arch| arch == MACHINE);
        let arches = &entry.includes.arches;
        if all && none && (arches.is_empty() || here(arches)) && !here(&entry.excludes.arches) {
            entry.add_to(&mut rules)?;
        }
    }
    let default = action(&file.default_action, file.default_errno_ret)?;
    Ok(Profile { default, flags, abis, rules })
}

impl Entry {
    fn add_to(&self, rules: &mut Vec<Rule>) -> Result<(), String> {
        let names = self.names.iter().chain(&self.name).map(|n| Cow::Owned(n.clone())).collect();
        let args = self.args.iter().map(Comparison::read).collect::<Result<Vec<_>, _>>()?;
        let rule = Rule { names, action: action(&self.action, self.errno_ret)?, args };
        let mut indexes: Vec<u8> = rule.args.iter().map(|arg| arg.index).collect();
        indexes.sort_unstable();
        indexes.dedup();
        if indexes.len() == rule.args.len() {
            rules.push(rule);
        } else {
            // Several conditions on one argument are alternatives, as runc reads them.
            let alone = |arg: &Arg| Rule { args: vec![arg.clone()], ..rule.clone() };
            rules.extend(rule.args.iter().map(alone));
        }
        Ok(())
    }
}

impl Comparison {
    fn read(&self) -> Result<Arg, String> {
        let Self { index, value, value_two, op } = self;
        if *index >= ARGUMENTS {
            return Err(format!("argument {index}: a system call has {ARGUMENTS}, from 0"));
        }
        let op = match op.as_str() {
            "SCMP_CMP_NE" => Op::Ne,
            "SCMP_CMP_LT" => Op::Lt,
            "SCMP_CMP_LE" => Op::Le,
            "SCMP_CMP_EQ" => Op::Eq,
            "SCMP_CMP_GE" => Op::Ge,
            "SCMP_CMP_GT" => Op::Gt,
            "SCMP_CMP_MASKED_EQ" => {
                let masked = Arg::new(*index, Op::Eq, value_two & value);
                return Ok(Arg { mask: *value, ..masked });
            }
            _ => return Err(format!("comparison {op:?} is not known")),
        };
        Ok(Arg::new(*index, op, *value))
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<u32, String> {
    let number = errno.unwrap_or(EPERM) & 0xffff;
    Ok(match name {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_LOG" => LOG,
        "SCMP_ACT_ERRNO" => ERRNO | number,
        "SCMP_ACT_TRACE" => TRACE | number,
        "SCMP_ACT_TRAP" => TRAP,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_NOTIFY" => return Err(format!("action {name} is not supported")),
        _ => return Err(format!("action {name:?} is not known")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(syscalls: &str) -> Result<Profile, String> {
        let body = format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": {syscalls}}}"#
        );
        parse(body.as_bytes(), &["CAP_SYS_ADMIN"])
    }

    #[test]
    fn rules_with_conditions() {
        let got = read(
            r#"[{"names": ["a", "b"], "action": "SCMP_ACT_ALLOW", "args": null,
                 "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"name": "c", "action": "SCMP_ACT_LOG", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["d"], "action": "SCMP_ACT_LOG", "includes": {"arches": ["s390x"]}},
                {"names": ["e"], "action": "SCMP_ACT_TRACE", "errnoRet": 7, "args": [
                    {"index": 1, "value": 12, "valueTwo": 255, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["f"], "action": "SCMP_ACT_KILL", "args": [
                    {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
                    {"index": 0, "value": 5, "op": "SCMP_CMP_GT"}]}]"#,
        )
        .unwrap();
        let masked = Arg { mask: 12, ..Arg::new(1, Op::Eq, 12) };
        let want = [
            Rule::new("a b", ALLOW, vec![]),
            Rule::new("e", TRACE | 7, vec![masked]),
            Rule::new("f", KILL_THREAD, vec![Arg::new(0, Op::Eq, 1)]),
            Rule::new("f", KILL_THREAD, vec![Arg::new(0, Op::Gt, 5)]),
        ];
        assert_eq!(got.rules, want);
        assert_eq!((got.default, got.flags), (ERRNO | 38, None));
        assert_eq!(got.abis, [&NATIVE[0]]);
        assert!(read("null").unwrap().rules.is_empty());
    }

    #[test]
    fn kinds_of_calls_and_flags() {
        let read = |more: &str| {
            let body = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", {more}}}"#);
            parse(body.as_bytes(), &[])
        };
        let last = NATIVE.last().unwrap();
        let own = NATIVE[0].name;
        for more in [
            format!(r#""architectures": ["SCMP_ARCH_S390X", "{}"]"#, last.name),
            format!(
                r#""archMap": [{{"architecture": "SCMP_ARCH_MIPS", "subArchitectures": null}},
                    {{"architecture": "{own}", "subArchitectures": ["{}"]}}]"#,
                last.name
            ),
        ] {
            assert_eq!(read(&more).unwrap().abis, [&NATIVE[0], last], "{more}");
        }
        let flags = r#""flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]"#;
        assert_eq!(read(flags).unwrap().flags, Some(6));
        assert_eq!(read(r#""flags": ["X"]"#).unwrap_err(), "flag \"X\" is not supported");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (syscalls, want) in [
            (r#"[{"names": ["a"], "action": "X"}]"#, "action \"X\" is not known"),
            (
                r#"[{"names": ["a"], "action": "SCMP_ACT_NOTIFY"}]"#,
                "action SCMP_ACT_NOTIFY is not supported",
            ),
            (
                r#"[{"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "value": 0, "op": "X"}]}]"#,
                "argument 6: a system call has 6, from 0",
            ),
            (
                r#"[{"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 5, "value": 0, "op": "X"}]}]"#,
                "comparison \"X\" is not known",
            ),
        ] {
            assert_eq!(read(syscalls).unwrap_err(), want);
        }
        assert!(parse(b"{}", &[]).unwrap_err().contains("defaultAction"));
    }
}
