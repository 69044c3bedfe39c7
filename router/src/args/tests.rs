//! Flags that need more than clap: the host name, the key, and the two names of one limit.

use super::*;

#[derive(Debug, clap::Parser)]
struct Program {
    #[command(flatten)]
    router: RouterArgs,
}

impl AsMut<RouterArgs> for Program {
    fn as_mut(&mut self) -> &mut RouterArgs {
        &mut self.router
    }
}

fn parsed(flags: &[&str]) -> Result<RouterArgs, clap::Error> {
    let arguments = ["router"].iter().chain(flags).map(OsString::from);
    parse::<Program>(arguments).map(|program| program.router)
}

#[track_caller]
fn check_address(flags: &[&str], address: &str) {
    assert_eq!(parsed(flags).unwrap().listen.socket_address().to_string(), address);
}

#[test]
fn the_default_is_the_loopback() {
    check_address(&["--port", "8080"], "127.0.0.1:8080");
}

#[test]
fn a_flag_may_name_any_address() {
    check_address(&["--hostname", "0.0.0.0"], "0.0.0.0:3000");
    check_address(&["--hostname", "::1", "-p", "80"], "[::1]:80");
}

#[test]
fn a_flag_that_is_no_address_is_an_error() {
    let error = parsed(&["--hostname", "localhost"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ValueValidation);
    assert!(error.to_string().contains("--hostname takes an IP address"), "{error}");
}

#[test]
fn the_variable_counts_only_when_it_is_an_address() {
    let from_environment = |hostname: &str| {
        let mut listen = parsed(&[]).unwrap().listen;
        listen.set_hostname(hostname);
        listen.resolve_address(Some(clap::parser::ValueSource::EnvVariable)).unwrap();
        listen.socket_address().to_string()
    };
    assert_eq!(from_environment("pod-7f9c"), "127.0.0.1:3000");
    assert_eq!(from_environment("10.1.2.3"), "10.1.2.3:3000");
}

#[test]
fn the_input_limit_has_two_names_and_one_value() {
    assert_eq!(parsed(&["--max-input-length", "7"]).unwrap().limits.max_input_tokens(), Some(7));
    assert_eq!(parsed(&["--max-input-tokens", "8"]).unwrap().limits.max_input_tokens(), Some(8));
    let both = parsed(&["--max-input-length", "7", "--max-input-tokens", "8"]).unwrap_err();
    assert_eq!(both.kind(), ErrorKind::ArgumentConflict);
}

#[test]
fn the_input_limit_is_below_the_total() {
    let limits = |input, total| parsed(&["--max-input-tokens", input, "--max-total-tokens", total]);
    assert!(limits("99", "100").is_ok());
    let refusal = limits("100", "100").unwrap_err().to_string();
    assert!(refusal.contains("--max-input-tokens 100 must be less than --max-total-tokens 100"), "{refusal}");
}

#[test]
fn the_key_comes_from_flag_or_file_and_never_shows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let from_file = || parsed(&["--api-key-file", file.to_str().unwrap()]);

    assert!(from_file().unwrap_err().to_string().contains("--api-key-file"));
    std::fs::write(&file, "  \n").unwrap();
    assert!(from_file().unwrap_err().to_string().contains("the API key is empty"));
    std::fs::write(&file, "secret\n").unwrap();
    assert_eq!(from_file().unwrap().listen.api_key().unwrap().unwrap().reveal(), "secret");

    let from_flag = parsed(&["--api-key", "secret"]).unwrap();
    assert_eq!(from_flag.listen.api_key().unwrap().unwrap().reveal(), "secret");
    assert!(!format!("{from_flag:?}").contains("secret"));
    assert!(parsed(&["--api-key", ""]).is_err());
    assert_eq!(parsed(&[]).unwrap().listen.api_key().unwrap(), None);
}

#[test]
fn lists_split_at_commas_and_repeat() {
    let flags = ["--image-allow-address", "10.0.0.0/8,host", "--image-allow-address", "::1"];
    assert_eq!(parsed(&flags).unwrap().images.image_allow_address, ["10.0.0.0/8", "host", "::1"]);
}

#[test]
fn statistics_are_only_worth_a_line_when_somebody_wants_them() {
    assert_eq!(parsed(&["--usage-stats", "off"]).unwrap().not_served(), Vec::<String>::new());
    let wanted = parsed(&["--usage-stats", "on", "--ngrok"]).unwrap().not_served();
    assert_eq!(wanted.len(), 2);
    assert!(wanted[0].starts_with("--usage-stats has no effect:"), "{wanted:?}");
}
