use super::*;

fn policy(allow: &[&str]) -> FetchPolicy {
    FetchPolicy { allow: allow.iter().map(|target| target.parse().unwrap()).collect(), ..FetchPolicy::default() }
}

#[track_caller]
fn check(allow: &[&str], host: &str, address: &str, permitted: bool) {
    assert_eq!(policy(allow).permits(host, address.parse().unwrap()), permitted, "{allow:?} {host} {address}");
}

#[test]
fn a_network_opens_its_addresses_however_they_are_wrapped() {
    check(&["10.1.0.0/16"], "any.example", "10.1.2.3", true);
    check(&["10.1.0.0/16"], "any.example", "::ffff:10.1.2.3", true);
    check(&["10.1.0.0/16"], "any.example", "10.2.2.3", false);
    check(&["fd00::/8"], "any.example", "fd12::1", true);
    check(&["127.0.0.1"], "", "127.0.0.1", true);
    check(&["127.0.0.1"], "", "127.0.0.2", false);
    check(&["::1"], "", "::1", true);
}

#[test]
fn a_host_opens_its_own_addresses_only() {
    check(&["images.internal"], "images.internal", "10.1.2.3", true);
    check(&["Images.Internal"], "images.internal", "10.1.2.3", true);
    check(&["images.internal"], "more.images.internal", "10.1.2.3", false);
    check(&["images.internal"], "", "10.1.2.3", false);
}

#[test]
fn public_addresses_need_no_permission() {
    check(&[], "any.example", "8.8.8.8", true);
    check(&[], "any.example", "10.1.2.3", false);
}

#[test]
fn targets_that_are_none() {
    for text in ["", "10.0.0.0/33", "http://a", "a/b", "a b", "user@a", "a:80"] {
        assert!(text.parse::<AllowedTarget>().is_err(), "{text}");
    }
}

#[test]
fn literal_hosts_are_judged_and_names_are_left_to_the_resolver() {
    let url = |text: &str| Url::parse(text).unwrap();
    for refused in ["http://127.0.0.1/", "http://0x7f000001/", "http://[::ffff:a00:1]/", "http://[::1]:8080/"] {
        assert!(!policy(&[]).permits_host(&url(refused)), "{refused}");
    }
    assert!(policy(&[]).permits_host(&url("http://localhost/")));
    assert!(policy(&[]).permits_host(&url("http://8.8.8.8/")));
}
