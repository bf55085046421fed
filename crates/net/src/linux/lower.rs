//! Our rules in the words of the kernel's register machine (`linux/netfilter/nf_tables.h`).
//!
//! Registers are 32-bit words: a key's fields stand side by side from word 0, each padded to
//! whole words, as they do in a set's element.

use std::net::{IpAddr, SocketAddr};

use nlink::netlink::nftables::{
    self as nft, CmpOp, CtKey, DynsetExpr, DynsetOp, Expr, FibFlags, FibResult, LookupExpr,
    MetaKey, NumgenKind, PayloadBase, RawExpr, Register, SetDataType, SetElement, SetKeyType,
};

use crate::Cidr;
use crate::firewall::{
    Atom, Family, Field, Hook, HookKind, HookPoint, KeyType, Rule, Set, SetData, Statement, Value,
    Verdict,
};

/// Clients that one endpoint of a service with affinity remembers at most.
const AFFINITY_CLIENTS_MAX: u32 = 65_536;
/// Where numbers made by a rule stand: behind the longest key of fields.
const SCRATCH_WORD: usize = 12;
/// `RTN_LOCAL` of `linux/rtnetlink.h`.
const RTN_LOCAL: u32 = 2;
/// `NF_CT_STATE_INVALID_BIT` of `linux/netfilter/nf_conntrack_common.h`.
const CT_STATE_INVALID: u32 = 1;
/// `IP_CT_NEW` as a bit of `ct state` (`NF_CT_STATE_BIT`).
const CT_STATE_NEW: u32 = 8;
/// `IPS_DST_NAT` of `linux/netfilter/nf_conntrack_common.h`.
const IPS_DST_NAT: u32 = 1 << 5;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY` of `linux/netfilter/nf_nat.h`.
const NAT_FULLY_RANDOM: u32 = 1 << 4;

/// nlink's word for the family.
pub(super) fn family(family: Family) -> nft::Family {
    match family {
        Family::V4 => nft::Family::Ip,
        Family::V6 => nft::Family::Ip6,
    }
}

/// A base chain's place.
pub(super) fn hook(hook: Hook) -> nlink::Result<nft::BaseChain> {
    let kind = match hook.kind {
        HookKind::Filter => nft::ChainType::Filter,
        HookKind::Nat => nft::ChainType::Nat,
    };
    let point = match hook.point {
        HookPoint::Prerouting => nft::Hook::Prerouting,
        HookPoint::Input => nft::Hook::Input,
        HookPoint::Forward => nft::Hook::Forward,
        HookPoint::Output => nft::Hook::Output,
        HookPoint::Postrouting => nft::Hook::Postrouting,
    };
    let no_devices: [&str; 0] = [];
    nft::BaseChain::try_new(kind, point, nft::Priority::from_i32(hook.priority), no_devices)
}

/// The declaration of a set or map.
pub(super) fn set(table: &str, name: &str, of: Family, set: &Set) -> nft::Set {
    let keys: Vec<SetKeyType> = set.key.iter().map(|key| key_type(of, *key)).collect();
    let key = match <[SetKeyType; 1]>::try_from(keys) {
        Ok([single]) => single,
        Err(several) => SetKeyType::Concat(several),
    };
    let mut lowered = nft::Set::new(table, name).family(family(of)).key_type(key);
    lowered = match set.data {
        SetData::None => lowered,
        SetData::Verdict => lowered.vmap(),
        SetData::Target => lowered.map(SetDataType::Value(SetKeyType::Concat(vec![
            key_type(of, KeyType::Address),
            SetKeyType::InetService,
        ]))),
    };
    match set.timeout {
        Some(timeout) => lowered.dynamic().timeout(timeout).size(AFFINITY_CLIENTS_MAX),
        None => lowered,
    }
}

fn key_type(of: Family, key: KeyType) -> SetKeyType {
    match (key, of) {
        (KeyType::Address, Family::V4) => SetKeyType::Ipv4Addr,
        (KeyType::Address, Family::V6) => SetKeyType::Ipv6Addr,
        (KeyType::Protocol, _) => SetKeyType::InetProto,
        (KeyType::Port, _) => SetKeyType::InetService,
        // nft has a type "integer", but only for anonymous sets; a mark has its layout.
        (KeyType::Index, _) => SetKeyType::Mark,
    }
}

/// One element of a set or map.
pub(super) fn element(key: &[Atom], value: &Value) -> nlink::Result<SetElement> {
    let mut atoms = key.iter().map(|atom| match *atom {
        Atom::Address(address) => address_element(address),
        Atom::Protocol(number) => SetElement::inet_proto(number),
        Atom::Port(port) => SetElement::port(port),
        Atom::Index(index) => SetElement::mark(index),
    });
    let element = match (atoms.next(), atoms.len()) {
        (Some(single), 0) => single,
        (first, _) => SetElement::concat(first.into_iter().chain(atoms)),
    };
    Ok(match value {
        Value::Present => element,
        Value::Verdict(verdict) => element.verdict(lower_verdict(verdict)?),
        Value::Target(target) => element.value(SetElement::concat([
            address_element(target.ip()),
            SetElement::port(target.port()),
        ])),
    })
}

fn address_element(address: IpAddr) -> SetElement {
    match address {
        IpAddr::V4(v4) => SetElement::ipv4(v4),
        IpAddr::V6(v6) => SetElement::ipv6(v6),
    }
}

fn lower_verdict(verdict: &Verdict) -> nlink::Result<nft::Verdict> {
    Ok(match verdict {
        Verdict::Drop => nft::Verdict::Drop,
        Verdict::Jump(chain) => nft::Verdict::JumpTo(nft::ChainName::new(chain.as_str())?),
        Verdict::Goto(chain) => nft::Verdict::GotoTo(nft::ChainName::new(chain.as_str())?),
    })
}

/// A rule's expressions.
pub(super) fn rule(table: &str, chain: &str, of: Family, rule: &Rule) -> nlink::Result<nft::Rule> {
    let mut exprs = Vec::new();
    for statement in &rule.0 {
        lower(of, statement, &mut exprs)?;
    }
    Ok(nft::Rule::new(table, chain).family(family(of)).expressions(exprs))
}

fn lower(of: Family, statement: &Statement, out: &mut Vec<Expr>) -> nlink::Result<()> {
    match statement {
        Statement::InBlock { field, block, inside } => in_block(of, *field, block, *inside, out),
        Statement::InSet { fields, set } => {
            load(of, fields, out);
            out.push(LookupExpr::new(set, word(0)).into());
        }
        Statement::Lookup { fields, map } => {
            load(of, fields, out);
            out.push(LookupExpr::new(map, word(0)).dreg(Register::Verdict).into());
        }
        Statement::Local(field) => local(*field, out),
        Statement::ProtocolIs(number) => {
            out.push(Expr::Meta { dreg: word(0), key: MetaKey::L4Proto });
            out.push(compare(CmpOp::Eq, vec![*number]));
        }
        Statement::ConnectionNew | Statement::ConnectionInvalid => {
            let new = matches!(statement, Statement::ConnectionNew);
            out.push(Expr::Ct { dreg: word(0), key: CtKey::State });
            any_bit(if new { CT_STATE_NEW } else { CT_STATE_INVALID }, out);
        }
        Statement::ConnectionTranslated => {
            out.push(Expr::Ct { dreg: word(0), key: CtKey::Status });
            any_bit(IPS_DST_NAT, out);
        }
        Statement::Marked(bit) => {
            out.push(Expr::Meta { dreg: word(0), key: MetaKey::Mark });
            any_bit(*bit, out);
        }
        Statement::SetMark(bit) => change_mark(!bit, *bit, out),
        Statement::ClearMark(bit) => change_mark(!bit, 0, out),
        Statement::Remember { set } => {
            load(of, &[Field::Source], out);
            out.push(DynsetExpr::new(DynsetOp::Update, set, word(0)).into());
        }
        Statement::Translate(target) => translate(of, *target, out),
        Statement::BalanceTargets { count, map } => {
            number(*count, out);
            out.push(LookupExpr::new(map, word(SCRATCH_WORD)).dreg(word(0)).into());
            out.push(destination_nat(of));
        }
        Statement::BalanceVerdicts { count, map } => {
            number(*count, out);
            let lookup = LookupExpr::new(map, word(SCRATCH_WORD)).dreg(Register::Verdict);
            out.push(lookup.into());
        }
        Statement::Masquerade => out.push(raw("masq", &[(1, NAT_FULLY_RANDOM)])),
        Statement::RejectReset => out.push(Expr::Reject { reject_type: 1, icmp_code: 0 }),
        Statement::RejectUnreachable => {
            // Port unreachable is code 3 of ICMP's and code 4 of ICMPv6's "unreachable".
            let icmp_code = if of == Family::V4 { 3 } else { 4 };
            out.push(Expr::Reject { reject_type: 0, icmp_code });
        }
        Statement::Verdict(verdict) => out.push(Expr::Verdict(lower_verdict(verdict)?)),
    }
    Ok(())
}

fn word(index: usize) -> Register {
    Register::word(index).expect("our keys end before word 12, the last is 15")
}

fn address_words(of: Family) -> usize {
    if of == Family::V4 { 1 } else { 4 }
}

/// Loads the fields side by side from word 0.
fn load(of: Family, fields: &[Field], out: &mut Vec<Expr>) {
    let mut next = 0;
    for field in fields {
        let dreg = word(next);
        out.push(load_one(of, *field, dreg));
        next += match field {
            Field::Source | Field::Destination => address_words(of),
            Field::Protocol | Field::DestinationPort => 1,
        };
    }
}

fn load_one(of: Family, field: Field, dreg: Register) -> Expr {
    let (base, offset, len) = match (field, of) {
        (Field::Source, Family::V4) => (PayloadBase::Network, 12, 4),
        (Field::Destination, Family::V4) => (PayloadBase::Network, 16, 4),
        (Field::Source, Family::V6) => (PayloadBase::Network, 8, 16),
        (Field::Destination, Family::V6) => (PayloadBase::Network, 24, 16),
        (Field::DestinationPort, _) => (PayloadBase::Transport, 2, 2),
        (Field::Protocol, _) => return Expr::Meta { dreg, key: MetaKey::L4Proto },
    };
    Expr::Payload { dreg, base, offset, len }
}

fn compare(op: CmpOp, data: Vec<u8>) -> Expr {
    Expr::Cmp { sreg: word(0), op, data }
}

fn any_bit(bits: u32, out: &mut Vec<Expr>) {
    out.push(bitwise(bits.to_ne_bytes().to_vec(), vec![0; 4]));
    out.push(compare(CmpOp::Neq, vec![0; 4]));
}

fn bitwise(mask: Vec<u8>, xor: Vec<u8>) -> Expr {
    let len = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    Expr::Bitwise { sreg: word(0), dreg: word(0), len, mask, xor }
}

fn in_block(of: Family, field: Field, block: &Cidr, inside: bool, out: &mut Vec<Expr>) {
    let (network, mask) = match block.network() {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(block.prefix())).unwrap_or(0);
            (v4.octets().to_vec(), mask.to_be_bytes().to_vec())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(block.prefix())).unwrap_or(0);
            (v6.octets().to_vec(), mask.to_be_bytes().to_vec())
        }
    };
    load(of, &[field], out);
    let zero = vec![0; mask.len()];
    out.push(bitwise(mask, zero));
    out.push(compare(if inside { CmpOp::Eq } else { CmpOp::Neq }, network));
}

fn local(field: Field, out: &mut Vec<Expr>) {
    let flags = if field == Field::Source { FibFlags::SADDR } else { FibFlags::DADDR };
    out.push(Expr::Fib { dreg: word(0), result: FibResult::AddrType, flags });
    out.push(compare(CmpOp::Eq, RTN_LOCAL.to_ne_bytes().to_vec()));
}

fn change_mark(mask: u32, xor: u32, out: &mut Vec<Expr>) {
    out.push(Expr::Meta { dreg: word(0), key: MetaKey::Mark });
    out.push(bitwise(mask.to_ne_bytes().to_vec(), xor.to_ne_bytes().to_vec()));
    out.push(Expr::MetaSet { key: MetaKey::Mark, sreg: word(0) });
}

fn number(count: u32, out: &mut Vec<Expr>) {
    out.push(Expr::Numgen {
        dreg: word(SCRATCH_WORD),
        kind: NumgenKind::Random,
        modulus: count,
        offset: 0,
    });
}

fn translate(of: Family, target: SocketAddr, out: &mut Vec<Expr>) {
    let address = match target.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    out.push(Expr::Immediate { dreg: word(0), data: address });
    let port = target.port().to_be_bytes().to_vec();
    out.push(Expr::Immediate { dreg: word(address_words(of)), data: port });
    out.push(destination_nat(of));
}

/// `nat` with the address in word 0 and the port behind it (`NFTA_NAT_*`).
fn destination_nat(of: Family) -> Expr {
    const NFT_NAT_DNAT: u32 = 1;
    let protocol = if of == Family::V4 { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 };
    let (address, port) = (word(0).wire(), word(address_words(of)).wire());
    raw(
        "nat",
        &[
            (1, NFT_NAT_DNAT),
            (2, protocol.unsigned_abs()),
            (3, address),
            (4, address),
            (5, port),
            (6, port),
        ],
    )
}

/// An expression from 32-bit attributes; nlink keeps no public builder for these.
fn raw(name: &str, attributes: &[(u16, u32)]) -> Expr {
    let mut data = Vec::with_capacity(attributes.len() * 8);
    for (kind, value) in attributes {
        data.extend_from_slice(&8u16.to_ne_bytes());
        data.extend_from_slice(&kind.to_ne_bytes());
        data.extend_from_slice(&value.to_be_bytes());
    }
    RawExpr::new(name, data).into()
}
