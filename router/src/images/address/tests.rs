use super::*;

/// Addresses that must never be connected to by default.
const REFUSED: &[&str] = &[
    // This host, private, shared, loopback, link-local (cloud metadata included).
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.255.255",
    // Protocol assignments, documentation, relay anycast, benchmarking, multicast, class E, broadcast.
    "192.0.0.1",
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "254.1.1.1",
    "255.255.255.255",
    // IPv6: unspecified, loopback, link-local, unique local, site-local, multicast, discard, documentation.
    "::",
    "::1",
    "fe80::1",
    "febf::1",
    "fc00::1",
    "fd12:3456:789a::1",
    "fec0::1",
    "feff::1",
    "ff02::1",
    "ff0e::1",
    "100::1",
    "2001:db8::1",
    "3fff::1",
    "3fff:fff::1",
    // Protocol assignments: benchmarking, ORCHID 1 and 2, and the local form of NAT64; not yet global unicast.
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:1ff::1",
    "64:ff9b:1::1",
    "64:ff9b:1:ffff::808:808",
    "4000::1",
    "5f00::1",
    // Carriers of a private IPv4 address: mapped, compatible, translated, NAT64, 6to4, Teredo (client, then server).
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::10.1.2.3",
    "::ffff:0:192.168.1.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::1",
    "2002:a00:1::",
    "2002:c0a8:101::1",
    "2002:a9fe:a9fe::1",
    "2001:0:808:808::80ff:fffe",
    "2001:0:808:808:0:0:f5ff:fffe",
    "2001:0:a00:1::f7f7:f7f7",
];

/// Addresses on the public internet, carriers included.
const GLOBAL: &[&str] = &[
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.0.3.0",
    "192.88.98.1",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.1",
    "203.0.112.1",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2606:4700::1111",
    "2a00:1450::1",
    "3ffe::1",
    "3fff:1000::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
    "2001:0:808:808::f7f7:f7f7",
];

#[test]
fn the_table_has_the_promised_size() {
    assert!(REFUSED.len() + GLOBAL.len() >= 60);
}

#[test]
fn special_addresses_are_refused() {
    for text in REFUSED {
        assert!(!is_global(text.parse().unwrap()), "{text}");
    }
}

#[test]
fn public_addresses_are_global() {
    for text in GLOBAL {
        assert!(is_global(text.parse().unwrap()), "{text}");
    }
}
