//! What is checked before minutes are spent on a model: the port and the shard program.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crate::error::LaunchError;

const SERVER: &str = "text-generation-server";

/// Fails when somebody listens on the address already.
pub(crate) fn ensure_free(address: SocketAddr) -> Result<(), LaunchError> {
    TcpListener::bind(address).map(drop).map_err(|reason| LaunchError::Address { address, reason: plain(reason) })
}

/// The common cases without "os error 98".
fn plain(reason: io::Error) -> io::Error {
    let text = match reason.kind() {
        io::ErrorKind::AddrInUse => "the port is taken by another program",
        io::ErrorKind::PermissionDenied => "this user may not use that port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        _ => return reason,
    };
    io::Error::new(reason.kind(), text)
}

/// A port of the loopback that was free a moment ago.
pub(crate) fn free_port() -> Result<u16, LaunchError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(LaunchError::system("cannot find a free port for the ranks"))
}

/// The shard program: the one asked for, else the one installed beside this program, else the one on `PATH`.
pub(crate) fn find_server(
    asked_for: Option<&Path>,
    this_program: Option<&Path>,
    path: Option<&str>,
) -> Result<PathBuf, LaunchError> {
    if let Some(program) = asked_for {
        return search(path, program).ok_or_else(|| LaunchError::NoServer(program.to_owned()));
    }
    let beside = this_program.and_then(Path::parent).map(|folder| folder.join(SERVER)).filter(|file| file.is_file());
    beside.or_else(|| search(path, Path::new(SERVER))).ok_or_else(|| LaunchError::NoServer(SERVER.into()))
}

/// A bare name is looked for in `PATH`; anything with a folder is taken as it is.
fn search(path: Option<&str>, program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return Some(program.to_owned()).filter(|file| file.is_file());
    }
    let folders = path.unwrap_or_default().split(':').filter(|folder| !folder.is_empty());
    folders.map(|folder| Path::new(folder).join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_by_name() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let refusal = ensure_free(address).unwrap_err().to_string();
        assert!(refusal.contains(&address.to_string()) && refusal.contains("taken by another program"), "{refusal}");
        drop(taken);
        ensure_free(address).unwrap();
    }

    #[test]
    fn the_server_beside_this_program_comes_before_path() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [beside, on_path] = folders.each_ref().map(|folder| folder.path().join(SERVER));
        let this_program = folders[0].path().join("text-generation-launcher");
        let path = format!("/nonexistent:{}", folders[1].path().display());
        let find = || find_server(None, Some(&this_program), Some(&path));

        assert!(matches!(find(), Err(LaunchError::NoServer(_))));
        std::fs::write(&on_path, "").unwrap();
        assert_eq!(find().unwrap(), on_path);
        std::fs::write(&beside, "").unwrap();
        assert_eq!(find().unwrap(), beside);
        assert_eq!(find_server(Some(&on_path), Some(&this_program), None).unwrap(), on_path);
        assert!(find_server(Some(Path::new("/nonexistent/server")), None, Some(&path)).is_err());
    }
}
