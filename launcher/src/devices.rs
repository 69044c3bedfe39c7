//! How many ranks share the model: what was asked for, held against the GPUs this process may use.

use std::process::{Command, Stdio};

use crate::error::LaunchError;

/// The variables that say which GPUs a process may use.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct VisibleDevices<'a> {
    pub(crate) cuda: Option<&'a str>,
    pub(crate) nvidia: Option<&'a str>,
    pub(crate) level_zero: Option<&'a str>,
}

impl VisibleDevices<'_> {
    /// Number of GPUs; none when nothing says so.
    pub(crate) fn count(self) -> Option<u32> {
        self.count_with(count_by_driver)
    }

    fn count_with(self, ask_driver: impl FnOnce() -> Option<u32>) -> Option<u32> {
        if let Some(list) = self.cuda {
            return entries(list);
        }
        match self.nvidia {
            Some("all" | "void") => ask_driver(),
            Some(list) => entries(list),
            None => self.level_zero.and_then(entries),
        }
    }
}

/// Entries of a comma list. An empty list, -1 and none are how GPUs are hidden.
fn entries(list: &str) -> Option<u32> {
    let named = list.split(',').map(str::trim).take_while(|entry| !matches!(*entry, "" | "-1" | "none" | "NoDevFiles"));
    Some(named.count() as u32).filter(|count| *count > 0)
}

/// One line a GPU; no driver, no line.
fn count_by_driver() -> Option<u32> {
    let listing = Command::new("nvidia-smi").arg("-L").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let gpus = String::from_utf8_lossy(&listing.stdout).lines().filter(|line| line.starts_with("GPU ")).count();
    Some(gpus as u32).filter(|count| *count > 0)
}

/// Number of ranks. Without GPUs any number goes: on a CPU two ranks are two processes.
pub(crate) fn world_size(
    sharded: Option<bool>,
    num_shard: Option<u32>,
    devices: Option<u32>,
) -> Result<u32, LaunchError> {
    let wanted = match (sharded, num_shard) {
        (Some(false), None) => 1,
        (_, Some(number)) => number,
        (_, None) => devices.unwrap_or(1),
    };
    if sharded == Some(true) && wanted < 2 {
        return Err(LaunchError::WorldSize(format!("--sharded true needs at least 2 shards; there would be {wanted}")));
    }
    match devices {
        Some(devices) if wanted > devices => {
            Err(LaunchError::WorldSize(format!("--num-shard {wanted} is more than the {devices} visible GPUs")))
        }
        _ => Ok(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sharded: Option<bool>, num_shard: Option<u32>, devices: Option<u32>, ranks: Option<u32>) {
        assert_eq!(world_size(sharded, num_shard, devices).ok(), ranks);
    }

    #[test]
    fn ranks_follow_flags_then_devices() {
        check(None, None, None, Some(1));
        check(None, None, Some(4), Some(4));
        check(None, Some(2), Some(4), Some(2));
        check(None, Some(8), Some(4), None);
        check(None, Some(2), None, Some(2));
        check(Some(false), None, Some(4), Some(1));
        check(Some(false), Some(2), Some(4), Some(2));
        check(Some(true), None, Some(4), Some(4));
        check(Some(true), None, Some(1), None);
        check(Some(true), None, None, None);
        check(Some(true), Some(2), None, Some(2));
    }

    #[track_caller]
    fn check_count(cuda: Option<&str>, nvidia: Option<&str>, level_zero: Option<&str>, count: Option<u32>) {
        assert_eq!(VisibleDevices { cuda, nvidia, level_zero }.count_with(|| Some(8)), count);
    }

    #[test]
    fn devices_are_counted_from_the_first_variable_that_is_set() {
        check_count(None, None, None, None);
        check_count(Some("0,1"), Some("all"), None, Some(2));
        check_count(Some(""), Some("all"), None, None);
        check_count(Some("-1"), None, None, None);
        check_count(Some("0,-1,2"), None, None, Some(1));
        check_count(Some("GPU-8a1b,GPU-77c0"), None, None, Some(2));
        check_count(None, Some("all"), None, Some(8));
        check_count(None, Some("void"), None, Some(8));
        check_count(None, Some("3"), Some("0,1"), Some(1));
        check_count(None, None, Some("0,1,2"), Some(3));
    }
}
