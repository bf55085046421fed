//! A profile as a program of the kernel's packet filter, which decides about each system call.
//!
//! Numbers of calls are laid out as ranges that share a fate, and the program looks for the range
//! by halves. Crates that make such programs know one kind of calls each and end a program that
//! makes one of another kind; libseccomp, which knows all, is C.

use std::collections::BTreeMap;

use super::abi::NATIVE;
use super::profile::{ALLOW, Arg, ERRNO, KILL_THREAD, LOG, Op, Profile, Rule, TRACE};

/// What the kernel takes at most.
const MAX_INSTRUCTIONS: usize = 4096;
/// More numbers that no rule names are no gap, but room for newer calls: a few of ARM's own lie
/// far above all others.
const MAX_GAP: u32 = 1000;
/// The number of a call that a tracer has taken away.
const NO_CALL: u32 = u32::MAX;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in what the kernel shows of a call.
const NUMBER: u32 = 0;
const AUDIT: u32 = 4;
const ARGUMENTS: u32 = 16;

/// An instruction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// Instructions to pass over where its condition holds.
    pub yes: u8,
    /// Instructions to pass over where it does not.
    pub no: u8,
    /// Its number.
    pub value: u32,
}

/// What becomes of a range of calls.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    Certain(u32),
    /// The first of these whose conditions hold, or else the last.
    Depends(Vec<(Vec<Arg>, u32)>, bool, u32),
}

fn plain(code: u16, value: u32) -> Instruction {
    Instruction { code, yes: 0, no: 0, value }
}

/// Makes the program.
pub fn compile(profile: &Profile) -> Result<Vec<Instruction>, String> {
    let mut code = vec![plain(LOAD, AUDIT)];
    let mut audits: Vec<u32> = NATIVE.iter().map(|abi| abi.audit).collect();
    audits.dedup();
    for audit in audits {
        let section = [vec![plain(LOAD, NUMBER)], search(&ranges(profile, audit))].concat();
        code.push(Instruction { code: IF_EQUAL, yes: 1, no: 0, value: audit });
        code.push(plain(JUMP, length(&section)));
        code.extend(section);
    }
    code.push(plain(RETURN, KILL_THREAD));
    if code.len() > MAX_INSTRUCTIONS {
        return Err(format!("it takes {} instructions, of at most {MAX_INSTRUCTIONS}", code.len()));
    }
    Ok(code)
}

fn length(code: &[Instruction]) -> u32 {
    u32::try_from(code.len()).unwrap_or(u32::MAX)
}

/// The first numbers of all ranges of calls that a processor names so, in order.
fn ranges(profile: &Profile, audit: u32) -> Vec<(u32, Fate)> {
    let mut all: Vec<(u32, Fate)> = Vec::new();
    let mut add = |first: u32, fate: Fate| match all.last() {
        Some((_, last)) if *last == fate => {}
        _ => all.push((first, fate)),
    };
    let default = Fate::Certain(profile.default);
    // Calls that a profile cannot know, since they are newer, must look as on an older kernel:
    // programs try them and go on with others if they are told that there is no such call.
    let newer = match profile.default & 0xffff_0000 {
        ALLOW | LOG | TRACE => default.clone(),
        _ => Fate::Certain(ERRNO | libc::ENOSYS as u32),
    };
    for abi in NATIVE.iter().filter(|abi| abi.audit == audit) {
        if !profile.abis.contains(&abi) {
            add(abi.base, Fate::Certain(KILL_THREAD));
            continue;
        }
        let numbers: BTreeMap<&str, u32> = abi.numbers().collect();
        let mut calls: BTreeMap<u32, Vec<&Rule>> = BTreeMap::new();
        for rule in &profile.rules {
            // A name that is none here is passed over, as libseccomp does.
            for number in rule.names.iter().filter_map(|name| numbers.get(name.as_ref())) {
                calls.entry(*number).or_default().push(rule);
            }
        }
        let mut next = abi.base;
        for (number, rules) in calls {
            if next < number {
                let room = number - next > MAX_GAP;
                add(next, if room { newer.clone() } else { default.clone() });
            }
            add(number, fate(&rules, profile.default, abi.wide));
            next = number + 1;
        }
        add(next, newer.clone());
    }
    add(NO_CALL, default);
    all
}

/// As in libseccomp a rule without conditions goes before those with, and one that says what holds
/// anyway says nothing.
fn fate(rules: &[&Rule], default: u32, wide: bool) -> Fate {
    let told: Vec<&&Rule> = rules.iter().filter(|rule| rule.action != default).collect();
    if let Some(rule) = told.iter().find(|rule| rule.args.is_empty()) {
        return Fate::Certain(rule.action);
    }
    if told.is_empty() {
        return Fate::Certain(default);
    }
    let tests = told.iter().map(|rule| (rule.args.clone(), rule.action)).collect();
    Fate::Depends(tests, wide, default)
}

fn search(ranges: &[(u32, Fate)]) -> Vec<Instruction> {
    let [.., (_, fate)] = ranges else { return Vec::new() };
    if ranges.len() == 1 {
        return fate.code();
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (before, after) = (search(low), search(high));
    let mut code = match u8::try_from(before.len()) {
        Ok(yes) => vec![Instruction { code: IF_AT_LEAST, yes, no: 0, value: high[0].0 }],
        // Conditional jumps do not reach so far.
        Err(_) => vec![
            Instruction { code: IF_AT_LEAST, yes: 0, no: 1, value: high[0].0 },
            plain(JUMP, length(&before)),
        ],
    };
    code.extend(before);
    code.extend(after);
    code
}

impl Fate {
    fn code(&self) -> Vec<Instruction> {
        match self {
            Self::Certain(action) => vec![plain(RETURN, *action)],
            Self::Depends(rules, wide, default) => {
                let mut code: Vec<_> = rules
                    .iter()
                    .flat_map(|(args, action)| all_hold(args, *action, *wide))
                    .collect();
                code.push(plain(RETURN, *default));
                code
            }
        }
    }
}

/// A step of a comparison, before it is known where its jumps lead.
enum Step {
    Do(u16, u32),
    Jump(u16, u32, To, To),
}

#[derive(Clone, Copy)]
enum To {
    Next,
    Holds,
    Fails,
}

/// Returns `action` if all conditions hold, and goes on behind itself otherwise.
fn all_hold(args: &[Arg], action: u32, wide: bool) -> Vec<Instruction> {
    let parts: Vec<Vec<Step>> = args.iter().map(|arg| arg.steps(wide)).collect();
    let finish = parts.iter().map(Vec::len).sum::<usize>();
    let mut code = Vec::new();
    for part in parts {
        let end = code.len() + part.len();
        for step in part {
            let here = code.len() + 1;
            let distance = |to| {
                let there = match to {
                    To::Next => here,
                    To::Holds => end,
                    To::Fails => finish + 1,
                };
                // Six arguments of five steps at most lie between.
                u8::try_from(there - here).unwrap_or(u8::MAX)
            };
            code.push(match step {
                Step::Do(code, value) => plain(code, value),
                Step::Jump(code, value, yes, no) => {
                    Instruction { code, yes: distance(yes), no: distance(no), value }
                }
            });
        }
    }
    code.push(plain(RETURN, action));
    code
}

impl Arg {
    /// The comparison in halves, since the filter's registers have 32 bits.
    fn steps(&self, wide: bool) -> Vec<Step> {
        let (kind, turned) = match self.op {
            Op::Eq => (IF_EQUAL, false),
            Op::Ne => (IF_EQUAL, true),
            Op::Gt => (IF_GREATER, false),
            Op::Le => (IF_GREATER, true),
            Op::Ge => (IF_AT_LEAST, false),
            Op::Lt => (IF_AT_LEAST, true),
        };
        let (holds, fails) = if turned { (To::Fails, To::Holds) } else { (To::Holds, To::Fails) };
        let half = |number: u64, shift: u32| (number >> shift) as u32;
        let load = |shift: u32| {
            let mut steps = vec![Step::Do(LOAD, ARGUMENTS + 8 * u32::from(self.index) + shift / 8)];
            let mask = half(self.mask, shift);
            if mask != u32::MAX {
                steps.push(Step::Do(AND, mask));
            }
            steps
        };
        let mut steps = Vec::new();
        if wide {
            let value = half(self.value, 32);
            steps.extend(load(32));
            if kind != IF_EQUAL {
                steps.push(Step::Jump(IF_GREATER, value, holds, To::Next));
            }
            steps.push(Step::Jump(IF_EQUAL, value, To::Next, fails));
        }
        steps.extend(load(0));
        steps.push(Step::Jump(kind, half(self.value, 0), holds, fails));
        steps
    }
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
