//! Which addresses are globally routable: the only ones that are connected to unless an operator allows others.
//!
//! IPv4 is judged by a list of special blocks. IPv6 must lie in the global unicast block, outside its special parts;
//! an address that carries an IPv4 address for some gateway to unpack is as good as the address it carries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Address and prefix length of every IPv4 block that is not global (IANA special-purpose registry, multicast, class E).
const V4_SPECIAL: &[([u8; 4], u32)] = &[
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// Special blocks inside `2000::/3`. Teredo and 6to4 are unwrapped before this list is asked.
const V6_SPECIAL: &[([u16; 3], u32)] = &[
    ([0x2001, 0, 0], 23),      // protocol assignments, benchmarking, ORCHID
    ([0x2001, 0x0db8, 0], 32), // documentation
    ([0x3fff, 0, 0], 20),      // documentation
    ([0x2001, 0x0010, 0], 28), // ORCHID
];

/// Whether packets to this address, and to every address hidden in it, leave for the public internet.
pub(super) fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_global_v4(address),
        IpAddr::V6(address) => is_global_v6(address),
    }
}

/// The IPv4 address inside an IPv6 address that some gateway or the local stack would connect to.
#[allow(clippy::match_same_arms)] // One arm and one name for each kind of carrier.
pub(super) fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let pair = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match segments {
        // Compatible (::a.b.c.d), mapped (::ffff:a.b.c.d) and translated (::ffff:0:a.b.c.d).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => Some(pair(high, low)),
        // NAT64, well-known prefix.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(pair(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => Some(pair(high, low)),
        // Teredo: the client's address, inverted.
        [0x2001, 0, _, _, _, _, high, low] => Some(pair(!high, !low)),
        _ => None,
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let bits = u32::from(address);
    !V4_SPECIAL.iter().any(|(block, prefix)| (bits ^ u32::from_be_bytes(*block)) >> (32 - prefix) == 0)
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = embedded_v4(address) {
        return is_global_v4(inner) && teredo_server(address).is_none_or(is_global_v4);
    }
    let bits = u128::from(address);
    let in_block = |segments: [u16; 3], prefix: u32| {
        let block = u128::from(segments[0]) << 112 | u128::from(segments[1]) << 96 | u128::from(segments[2]) << 80;
        (bits ^ block) >> (128 - prefix) == 0
    };
    in_block([0x2000, 0, 0], 3) && !V6_SPECIAL.iter().any(|(block, prefix)| in_block(*block, *prefix))
}

fn teredo_server(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0x2001, 0, high, low, ..] => Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
