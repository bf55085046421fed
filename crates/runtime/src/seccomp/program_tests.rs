use super::super::abi::Abi;
use super::super::profile::EPERM;
use super::super::{default, file};
use super::*;

const EPERM_ERROR: u32 = ERRNO | EPERM;
const ENOSYS_ERROR: u32 = ERRNO | libc::ENOSYS as u32;

/// What the kernel does with a program.
fn run(program: &[Instruction], audit: u32, number: u32, args: [u64; 6]) -> u32 {
    let halves = args.iter().flat_map(|arg| [*arg as u32, (arg >> 32) as u32]);
    let shown: Vec<u32> = [number, audit, 0, 0].into_iter().chain(halves).collect();
    let (mut at, mut register) = (0, 0);
    loop {
        let Instruction { code, yes, no, value } = program[at];
        at += 1;
        let holds = match code {
            LOAD => {
                register = shown[value as usize / 4];
                continue;
            }
            AND => {
                register &= value;
                continue;
            }
            JUMP => {
                at += value as usize;
                continue;
            }
            RETURN => return value,
            IF_EQUAL => register == value,
            IF_GREATER => register > value,
            IF_AT_LEAST => register >= value,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if holds { yes } else { no });
    }
}

fn call(program: &[Instruction], abi: &Abi, name: &str, first: u64) -> u32 {
    let (_, number) = abi.numbers().find(|(known, _)| *known == name).expect(name);
    run(program, abi.audit, number, [first, 0, 0, 0, 0, 0])
}

#[test]
fn the_default_profile() {
    let usual = compile(&default::profile(&["CAP_CHOWN", "CAP_SYS_CHROOT"])).unwrap();
    let admin = compile(&default::profile(&["CAP_SYS_ADMIN", "CAP_SYS_TIME"])).unwrap();
    let new_user = u64::from(libc::CLONE_NEWUSER as u32);
    for (name, first, want, with_admin) in [
        ("read", 0, ALLOW, ALLOW),
        ("execve", 0, ALLOW, ALLOW),
        ("mount", 0, EPERM_ERROR, ALLOW),
        ("keyctl", 0, EPERM_ERROR, EPERM_ERROR),
        ("io_uring_setup", 0, EPERM_ERROR, EPERM_ERROR),
        ("chroot", 0, ALLOW, EPERM_ERROR),
        ("clock_settime", 0, EPERM_ERROR, ALLOW),
        ("clone", 0x4111, ALLOW, ALLOW),
        ("clone", new_user, EPERM_ERROR, ALLOW),
        ("clone3", 0, ENOSYS_ERROR, ALLOW),
        ("personality", 8, ALLOW, ALLOW),
        ("personality", 0xffff_ffff, ALLOW, ALLOW),
        ("personality", 0x4_0000, EPERM_ERROR, EPERM_ERROR),
    ] {
        for abi in &NATIVE {
            assert_eq!(call(&usual, abi, name, first), want, "{name} {first:#x} {}", abi.name);
            assert_eq!(call(&admin, abi, name, first), with_admin, "{name} of an administrator");
        }
    }
    for (family, want) in [
        (libc::AF_UNIX, ALLOW),
        (libc::AF_INET6, ALLOW),
        (libc::AF_NETLINK, ALLOW),
        (libc::AF_ALG, EPERM_ERROR),
        (libc::AF_VSOCK, EPERM_ERROR),
        (46, EPERM_ERROR),
    ] {
        assert_eq!(call(&usual, &NATIVE[0], "socket", family as u64), want, "family {family}");
    }
    // The kernel looks at the lower half alone.
    let hidden = 1 << 32 | libc::AF_ALG as u64;
    assert_eq!(call(&usual, &NATIVE[0], "socket", hidden), EPERM_ERROR);
}

#[test]
fn calls_that_no_profile_knows() {
    let program = compile(&default::profile(&[])).unwrap();
    for abi in &NATIVE {
        for newer in [800, 0x00ff_ffff].map(|number| abi.base + number) {
            assert_eq!(run(&program, abi.audit, newer, [0; 6]), ENOSYS_ERROR, "{}", abi.name);
        }
    }
    assert_eq!(run(&program, NATIVE[0].audit, NO_CALL, [0; 6]), EPERM_ERROR);
    assert_eq!(run(&program, 0x8000_0016, 1, [0; 6]), KILL_THREAD);
    // Other kinds of calls than the profile's own are no way around it.
    let body = br#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdirat", "nonsense"], "action": "SCMP_ACT_ERRNO"}]}"#;
    let program = compile(&file::parse(body, &[]).unwrap()).unwrap();
    assert_eq!(call(&program, &NATIVE[0], "mkdirat", 0), EPERM_ERROR);
    assert_eq!(call(&program, &NATIVE[0], "read", 0), ALLOW);
    assert_eq!(run(&program, NATIVE[0].audit, 9999, [0; 6]), ALLOW);
    for abi in &NATIVE[1..] {
        assert_eq!(call(&program, abi, "read", 0), KILL_THREAD, "{}", abi.name);
    }
}

#[test]
fn rules_of_one_call() {
    let rule = |action, args| Rule::new("read", action, args);
    let is = |value| vec![Arg::new(0, Op::Eq, value)];
    let result = |rules: Vec<Rule>, first| {
        let profile = Profile { default: EPERM_ERROR, flags: None, abis: vec![&NATIVE[0]], rules };
        call(&compile(&profile).unwrap(), &NATIVE[0], "read", first)
    };
    let both = vec![rule(ALLOW, is(1)), rule(LOG, is(2))];
    assert_eq!(result(both.clone(), 1), ALLOW);
    assert_eq!(result(both.clone(), 2), LOG);
    assert_eq!(result(both.clone(), 3), EPERM_ERROR);
    let broad = [both, vec![rule(TRACE, vec![]), rule(EPERM_ERROR, vec![])]].concat();
    assert_eq!(result(broad, 1), TRACE);
}

#[test]
fn comparisons() {
    let low = u64::from(u32::MAX);
    let interesting =
        [0, 1, 2, low - 1, low, low + 1, low + 2, 2 * low + 1, u64::MAX - 1, u64::MAX];
    type Compare = fn(u64, u64) -> bool;
    let ops: [(Op, Compare); 6] = [
        (Op::Eq, |a, b| a == b),
        (Op::Ne, |a, b| a != b),
        (Op::Lt, |a, b| a < b),
        (Op::Le, |a, b| a <= b),
        (Op::Gt, |a, b| a > b),
        (Op::Ge, |a, b| a >= b),
    ];
    for (op, compare) in ops {
        for value in interesting {
            for mask in [u64::MAX, 0xff << 28] {
                let arg = Arg { mask, ..Arg::new(3, op, value & mask) };
                // With a second condition, jumps have to lead past it, and not only behind.
                let args = vec![arg, Arg::new(5, Op::Ne, 7)];
                let mut program = vec![];
                program.extend(all_hold(&args, ALLOW, true));
                program.push(plain(RETURN, LOG));
                for given in interesting {
                    for other in [6, 7] {
                        let got = run(&program, 0, 0, [0, 0, 0, given, 0, other]);
                        let want = compare(given & mask, value & mask) && other != 7;
                        assert_eq!(got == ALLOW, want, "{given:#x} {op:?} {value:#x}/{mask:#x}");
                    }
                }
            }
        }
    }
}

#[test]
fn too_long_a_program_is_refused() {
    let many = (0..400).map(|n| Rule::new("read", ALLOW, vec![Arg::new(0, Op::Ge, n); 3]));
    let rules = many.collect();
    let profile = Profile { default: EPERM_ERROR, flags: None, abis: vec![&NATIVE[0]], rules };
    let error = compile(&profile).unwrap_err();
    assert!(error.ends_with("instructions, of at most 4096"), "{error}");
    // The usual one takes a small part of that.
    let usual = compile(&default::profile(&[])).unwrap().len();
    assert!(usual < 1200, "{usual}");
}
