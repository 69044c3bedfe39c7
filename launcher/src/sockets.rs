//! The folder of the shards' sockets: fresh, closed to other users, gone at the end. What a killed launcher could not
//! remove is removed by the next one.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::LaunchError;

const PREFIX: &str = "text-generation-sockets-";
/// A file that its launcher holds locked. The system lets go of it however that launcher ends.
const LOCK: &str = "lock";

/// A private folder; it goes when it is dropped.
pub(crate) struct SocketFolder {
    folder: TempDir,
    _lock: File,
}

impl SocketFolder {
    /// Makes one inside `parent` and removes those whose launcher is gone.
    pub(crate) fn new(parent: &Path) -> Result<Self, LaunchError> {
        sweep(parent);
        let made =
            tempfile::Builder::new().prefix(PREFIX).permissions(Permissions::from_mode(0o700)).tempdir_in(parent);
        let locked = made.and_then(|folder| Ok(Self { _lock: lock(&folder)?, folder }));
        locked.map_err(LaunchError::system("cannot make a folder for the shards' sockets"))
    }

    /// The socket of each rank.
    pub(crate) fn sockets(&self, world_size: u32) -> Vec<PathBuf> {
        (0..world_size).map(|rank| self.folder.path().join(format!("shard-{rank}"))).collect()
    }
}

fn lock(folder: &TempDir) -> io::Result<File> {
    let file = File::create_new(folder.path().join(LOCK))?;
    file.lock()?;
    Ok(file)
}

/// Removes the folders of launchers that are gone. A folder that cannot be removed is in nobody's way.
fn sweep(parent: &Path) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for folder in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        if is_abandoned(&folder.path()) {
            let _ = std::fs::remove_dir_all(folder.path());
        }
    }
}

/// Whether nobody holds the lock of a folder of ours. One without a lock was made a moment ago; another user's cannot
/// be looked into.
fn is_abandoned(folder: &Path) -> bool {
    let is_folder = folder.symlink_metadata().is_ok_and(|entry| entry.is_dir());
    is_folder && File::open(folder.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_private_and_goes_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let folder = SocketFolder::new(parent.path()).unwrap();
        let sockets = folder.sockets(2);
        let place = sockets[0].parent().unwrap();
        assert_eq!(place.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_ne!(sockets[0], sockets[1]);
        drop(folder);
        assert!(parent.path().exists() && std::fs::read_dir(parent.path()).unwrap().next().is_none());
    }

    #[test]
    fn only_what_nobody_holds_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let held = SocketFolder::new(parent.path()).unwrap();
        let abandoned = parent.path().join(format!("{PREFIX}killed"));
        let young = parent.path().join(format!("{PREFIX}young"));
        let foreign = parent.path().join("text-generation-notes");
        for folder in [&abandoned, &young, &foreign] {
            std::fs::create_dir(folder).unwrap();
        }
        std::fs::write(abandoned.join(LOCK), "").unwrap();
        std::fs::write(foreign.join(LOCK), "").unwrap();

        let next = SocketFolder::new(parent.path()).unwrap();
        assert!(!abandoned.exists() && young.exists() && foreign.exists());
        assert!(held.folder.path().exists() && next.folder.path().exists());
    }
}
