use super::*;

/// 1x1 is enough here: nothing in this module looks inside.
const HELLO: &[u8] = b"hello";

#[track_caller]
fn check_inline(url: &str, bytes: &[u8]) {
    assert_eq!(url.parse(), Ok(ImageSource::Inline(Bytes::copy_from_slice(bytes))), "{url}");
}

#[track_caller]
fn check_remote_is(url: &str, normal: &str) {
    match url.parse() {
        Ok(ImageSource::Remote(parsed)) => assert_eq!(parsed.as_str(), normal),
        other => panic!("{url}: {other:?}"),
    }
}

#[track_caller]
fn refuse(url: &str, error: &InvalidImageUrl) {
    assert_eq!(url.parse::<ImageSource>().as_ref(), Err(error), "{url}");
}

#[test]
fn data_uris() {
    check_inline("data:image/png;base64,aGVsbG8=", HELLO);
    check_inline("data:image/png;base64,aGVsbG8", HELLO);
    check_inline("DATA:image/png;BASE64,aGVsbG8=", HELLO);
    check_inline("data:;base64,aGVsbG8=", HELLO);
    check_inline("data:text/plain;charset=utf-8;name=\"a\";base64,aGVsbG8=", HELLO);
    check_inline("data:image/jpeg;base64,+/+/", &[0xfb, 0xff, 0xbf]);
}

#[test]
fn data_uris_that_are_none() {
    for url in ["data:", "data:image/png,aGVsbG8=", "data:image/png;base64", "data:image/png;base64;x=1,aGVsbG8="] {
        refuse(url, &InvalidImageUrl::DataForm);
    }
    refuse(&format!("data:{};base64,aGVsbG8=", "a".repeat(300)), &InvalidImageUrl::DataForm);
    for payload in
        ["aGVs bG8=", "aGVs\nbG8=", " aGVsbG8=", "aGVsbG8==", "aGV_bG8-", "%61GVsbG8=", "a", "aGVsbG9=", "=aGVsbG8"]
    {
        refuse(&format!("data:image/png;base64,{payload}"), &InvalidImageUrl::Base64);
    }
    refuse("data:image/png;base64,", &InvalidImageUrl::Empty);
    refuse("data:image/png;base64,====", &InvalidImageUrl::Base64);
}

#[test]
fn the_byte_limit_of_a_data_uri_is_exact_and_comes_before_decoding() {
    let parse = |payload: &str, limit| ImageSource::parse(&format!("data:;base64,{payload}"), limit);
    assert!(parse("aGVsbG8=", 5).is_ok());
    assert_eq!(parse("aGVsbG8=", 4), Err(InvalidImageUrl::TooManyBytes { limit: 4 }));
    assert_eq!(parse("!!!!!!!!", 4), Err(InvalidImageUrl::TooManyBytes { limit: 4 }), "the content is not looked at");
}

#[test]
fn remote_urls_arrive_in_normal_form() {
    check_remote_is("https://example.com/a.png", "https://example.com/a.png");
    check_remote_is("HTTP://EXAMPLE.com:80/a/../b?c#d", "http://example.com/b?c");
    check_remote_is("http://0x7f.1/", "http://127.0.0.1/");
    check_remote_is("http://2130706433/", "http://127.0.0.1/");
    check_remote_is("http://[::ffff:7f00:1]/", "http://[::ffff:7f00:1]/");
    check_remote_is("http://bücher.example/", "http://xn--bcher-kva.example/");
    check_remote_is("http:example.com", "http://example.com/");
}

#[test]
fn everything_else_is_refused() {
    for url in [
        "",
        "x",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://example.com/a",
        "gopher://x",
        "javascript:1",
        "//x/y",
        ":",
        "blob:https://x",
    ] {
        refuse(url, &InvalidImageUrl::Scheme);
    }
    for url in [
        "http://a b/",
        "http://a/\tb",
        "http://a/\nb",
        "http:\\\\a/",
        "http://a\\@b/",
        "http://a/\u{7f}",
        "http://a/\u{a0}",
    ] {
        refuse(url, &InvalidImageUrl::Characters);
    }
    for url in ["http://user@example.com/", "http://user:word@example.com/", "http://:word@example.com/"] {
        refuse(url, &InvalidImageUrl::UserInfo);
    }
    for url in ["http://", "https:///", "http://[::1/", "http://256.1.1.1/", "http://a:99999/", "http://%00/"] {
        refuse(url, &InvalidImageUrl::Malformed);
    }
    refuse(&format!("http://a/{}", "b".repeat(MAX_URL_BYTES)), &InvalidImageUrl::TooLong);
}
