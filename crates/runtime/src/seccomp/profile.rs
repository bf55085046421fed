//! A profile: what is to become of which system call.

use std::borrow::Cow;

use super::abi::Abi;

/// The call is made.
pub const ALLOW: u32 = 0x7fff_0000;
/// The call is made and logged.
pub const LOG: u32 = 0x7ffc_0000;
/// A tracer decides.
pub const TRACE: u32 = 0x7ff0_0000;
/// The call fails with the number in the lower half.
pub const ERRNO: u32 = 0x0005_0000;
/// The thread ends, as if by a signal.
pub const KILL_THREAD: u32 = 0;
/// The program ends, as if by a signal.
pub const KILL_PROCESS: u32 = 0x8000_0000;
/// The program gets a signal.
pub const TRAP: u32 = 0x0003_0000;
/// What a refused call fails with unless the profile says otherwise.
pub const EPERM: u32 = libc::EPERM as u32;

/// A profile as it holds for one container.
#[derive(Debug, PartialEq)]
pub struct Profile {
    /// What becomes of calls that no rule names.
    pub default: u32,
    /// Flags of its loading, if it says any.
    pub flags: Option<u32>,
    /// Kinds of calls it is about; all others end the program.
    pub abis: Vec<&'static Abi>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// What becomes of some calls if all conditions hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The calls' names.
    pub names: Vec<Cow<'static, str>>,
    /// What becomes of them.
    pub action: u32,
    /// Conditions, all of which must hold.
    pub args: Vec<Arg>,
}

/// A condition on an argument.
#[derive(Clone, Debug, PartialEq)]
pub struct Arg {
    /// Which argument.
    pub index: u8,
    /// How it is compared.
    pub op: Op,
    /// Bits that count.
    pub mask: u64,
    /// With what it is compared.
    pub value: u64,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `==`
    Eq,
    /// `>=`
    Ge,
    /// `>`
    Gt,
}

impl Rule {
    /// A rule about names that stand in one text.
    pub fn new(names: &'static str, action: u32, args: Vec<Arg>) -> Self {
        Self { names: names.split_whitespace().map(Cow::Borrowed).collect(), action, args }
    }
}

impl Arg {
    /// A comparison of a whole argument.
    pub fn new(index: u8, op: Op, value: u64) -> Self {
        Self { index, op, mask: u64::MAX, value }
    }
}
