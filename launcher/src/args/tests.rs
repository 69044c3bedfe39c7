//! Every flag that text-generation-inference has parses here, from the command line and from its variable.

use std::ffi::OsString;

use clap::CommandFactory;
use text_generation_router::args::parse;

use super::LauncherArgs;

/// Flag, a value it takes (none for a switch), and whether setting it is worth a line because it changes nothing.
const FLAGS: &[(&str, Option<&str>, bool)] = &[
    ("model-id", Some("org/model"), false),
    ("revision", Some("main"), false),
    ("validation-workers", Some("2"), true),
    ("sharded", Some("true"), false),
    ("num-shard", Some("2"), false),
    ("quantize", Some("bitsandbytes-nf4"), true),
    ("speculate", Some("2"), true),
    ("dtype", Some("bfloat16"), false),
    ("kv-cache-dtype", Some("fp8_e5m2"), true),
    ("trust-remote-code", None, true),
    ("max-concurrent-requests", Some("64"), false),
    ("max-best-of", Some("2"), false),
    ("max-stop-sequences", Some("4"), false),
    ("max-top-n-tokens", Some("5"), false),
    ("max-input-tokens", Some("1000"), false),
    ("max-input-length", Some("1000"), false),
    ("max-total-tokens", Some("2000"), false),
    ("waiting-served-ratio", Some("0.3"), true),
    ("max-batch-prefill-tokens", Some("4096"), false),
    ("max-batch-total-tokens", Some("8192"), false),
    ("max-waiting-tokens", Some("20"), true),
    ("max-batch-size", Some("8"), false),
    ("cuda-graphs", Some("1,2,4"), false),
    ("hostname", Some("0.0.0.0"), false),
    ("port", Some("8080"), false),
    ("prometheus-port", Some("9000"), true),
    ("shard-uds-path", Some("/tmp/text-generation-server"), true),
    ("master-addr", Some("10.0.0.1"), true),
    ("master-port", Some("29500"), false),
    ("huggingface-hub-cache", Some("/data"), false),
    ("weights-cache-override", Some("/weights"), true),
    ("disable-custom-kernels", None, false),
    ("cuda-memory-fraction", Some("0.9"), false),
    ("rope-scaling", Some("linear"), true),
    ("rope-factor", Some("2.0"), true),
    ("json-output", None, false),
    ("otlp-endpoint", Some("http://localhost:4317"), true),
    ("otlp-service-name", Some("tgi"), true),
    ("cors-allow-origin", Some("*"), false),
    ("api-key", Some("secret"), false),
    ("watermark-gamma", Some("0.5"), false),
    ("watermark-delta", Some("2.0"), false),
    ("ngrok", None, true),
    ("ngrok-authtoken", Some("token"), true),
    ("ngrok-edge", Some("edge"), true),
    ("tokenizer-config-path", Some("/config.json"), true),
    ("disable-grammar-support", None, false),
    ("max-client-batch-size", Some("4"), false),
    ("lora-adapters", Some("a/b,name=/path"), true),
    ("usage-stats", Some("no-stack"), true),
    ("payload-limit", Some("2000000"), false),
    ("enable-prefill-logprobs", None, false),
    ("graceful-termination-timeout", Some("30"), false),
    ("max-image-fetch-size", Some("1000"), false),
];

fn parsed(flags: &[&str]) -> LauncherArgs {
    parse(["text-generation-launcher"].iter().chain(flags).map(OsString::from)).unwrap()
}

#[test]
fn every_flag_parses_and_says_so_when_it_changes_nothing() {
    for (flag, value, worth_a_line) in FLAGS {
        let flag = format!("--{flag}");
        let words: Vec<&str> = [flag.as_str()].into_iter().chain(*value).collect();
        let lines = parsed(&words).not_served();
        assert_eq!(lines.len(), usize::from(*worth_a_line), "{flag}: {lines:?}");
        assert!(lines.iter().all(|line| line.starts_with(&format!("{flag} has no effect: "))), "{lines:?}");
    }
}

#[test]
fn every_flag_has_its_variable() {
    let command = LauncherArgs::command();
    for (flag, ..) in FLAGS {
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag)).unwrap();
        let variable = flag.to_uppercase().replace('-', "_");
        assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(variable.as_str()), "--{flag}");
    }
}

#[test]
fn short_names_are_kept() {
    let args = parsed(&["-p", "81", "-g", "5", "-e"]);
    assert_eq!((args.router.listen.port, args.router.process.graceful_termination_timeout, args.env), (81, 5, true));
}

#[test]
fn nothing_set_is_worth_no_line() {
    assert_eq!(parsed(&[]).not_served(), Vec::<String>::new());
    assert_eq!(parsed(&["--master-addr", "localhost"]).not_served(), Vec::<String>::new());
}

#[test]
fn secrets_are_not_shown_by_help() {
    let secret = ["api-key", "ngrok-authtoken", "hf-token", "hf-api-token", "hugging-face-hub-token"];
    let command = LauncherArgs::command();
    for name in secret {
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(name)).unwrap();
        assert!(argument.is_hide_env_values_set(), "--{name}");
    }
}

#[test]
fn a_share_of_memory_is_a_share() {
    for bad in ["0", "1.5", "-1", "nan", "much"] {
        let words = ["launcher", "--cuda-memory-fraction", bad].map(OsString::from);
        assert!(parse::<LauncherArgs>(words).is_err(), "{bad}");
    }
    assert_eq!(parsed(&["--cuda-memory-fraction", "1"]).shards.cuda_memory_fraction, Some(1.0));
}

#[test]
fn sizes_to_capture_are_numbers() {
    for bad in ["", "a", "1,,2", "-1", "1.5", "70000"] {
        let words = ["launcher", &format!("--cuda-graphs={bad}")].map(OsString::from);
        assert!(parse::<LauncherArgs>(words).is_err(), "{bad}");
    }
    assert_eq!(parsed(&["--cuda-graphs", "1,2,4"]).shards.cuda_graphs, Some(vec![1, 2, 4]));
    assert_eq!(parsed(&["--cuda-graphs", "0"]).shards.cuda_graphs, Some(vec![0]));
}

#[test]
fn a_watermark_favours_some_and_not_all() {
    let rows = [("--watermark-gamma", "0"), ("--watermark-gamma", "1"), ("--watermark-delta", "-1")];
    for (flag, bad) in rows.into_iter().chain([("--watermark-delta", "nan"), ("--watermark-delta", "101")]) {
        let words = ["launcher", &format!("{flag}={bad}")].map(OsString::from);
        assert!(parse::<LauncherArgs>(words).is_err(), "{flag} {bad}");
    }
}

#[test]
fn the_current_name_of_the_hub_token_wins() {
    let token = |flags: &[&str]| parsed(flags).model.hub_token().map(str::to_owned);
    assert_eq!(token(&["--hf-api-token", "old"]), Some("old".to_owned()));
    assert_eq!(token(&["--hf-api-token", "old", "--hf-token", "new"]), Some("new".to_owned()));
}
