//! Counts the clients of our Unix datagram socket, from its row of `/proc/net/unix`.
//!
//! The table does not say to whom a client's row is connected, and clients have no name; but every connected one holds a
//! reference to our socket, and our row, which the inode names, tells how many there are. So the count is ours alone, whoever
//! else talks over Unix sockets in the pod, and includes clients in other network namespaces, whose rows we do not see. A sender
//! that waits for room in the queue holds a second reference meanwhile, so the count may be above the truth while the socket is
//! full.

use std::io::BufRead;

/// What the count is without a client: the socket's own reference and that of the kernel's table.
const OWN_REFERENCES: u64 = 2;

/// Rows read in search of ours; the kernel lists them in no order. 20,000 took 45 ms on Linux 6.18.
const MAX_ROWS: usize = 100_000;

/// Longest row looked at: a path has at most 108 bytes.
const MAX_ROW: u64 = 256;

/// Clients connected to the socket with this inode; `None` when its row is not found.
pub(super) fn clients(mut rows: impl BufRead, inode: u64) -> Option<u64> {
    let mut line = Vec::with_capacity(MAX_ROW as usize);
    for _ in 0..MAX_ROWS {
        line.clear();
        if std::io::Read::take(&mut rows, MAX_ROW).read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        if let Some((references, of)) = parse(&line)
            && of == inode
        {
            return Some(references.saturating_sub(OWN_REFERENCES));
        }
    }
    None
}

/// `Num: RefCount Protocol Flags Type St Inode Path`, the count in hexadecimal. Only the fields before the path are text.
fn parse(line: &[u8]) -> Option<(u64, u64)> {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let references = u64::from_str_radix(std::str::from_utf8(words.nth(1)?).ok()?, 16).ok()?;
    let inode = std::str::from_utf8(words.nth(4)?).ok()?.trim_end().parse().ok()?;
    Some((references, inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::BufReader;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    const HEAD: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n";

    #[test]
    fn the_row_with_our_inode_tells_how_many_are_connected() {
        let table = format!(
            "{HEAD}00000000545958c8: 00000002 00000000 00000000 0002 03 263987\n\
             00000000e8dbbdd4: 0000012E 00000000 00000000 0002 03 263787 /run/dsd.socket\n\
             00000000904c4be7: 00000003 00000000 00010000 0001 01  2637 @abstract name\n"
        );
        let count = |inode| clients(table.as_bytes(), inode);
        assert_eq!((count(263_787), count(263_987), count(2_637), count(1)), (Some(300), Some(0), Some(1), None));
    }

    #[test]
    fn rows_of_nonsense_are_passed_over() {
        let long = "x ".repeat(500);
        let table = format!("\n : \n{long}\nb: é 0 0 0 0 7\nb: 00000004 0 0 0002 03 7 /a\n");
        assert_eq!(clients(table.as_bytes(), 7), Some(2));
    }

    #[test]
    fn the_kernels_own_table_tells_connected_clients_from_closed_ones() {
        let dir = tempfile::tempdir().unwrap();
        let server = UnixDatagram::bind(dir.path().join("s")).unwrap();
        let inode = nix::sys::stat::fstat(server.as_fd()).unwrap().st_ino;
        let count = || clients(BufReader::new(File::open("/proc/net/unix").unwrap()), inode);
        assert_eq!(count(), Some(0));
        let connect = |_| {
            let client = UnixDatagram::unbound().unwrap();
            client.connect(dir.path().join("s")).unwrap();
            client
        };
        let mut clients: Vec<_> = (0..50).map(connect).collect();
        assert_eq!(count(), Some(50));
        // What waits in the queue belongs to its sender and counts for nobody else.
        clients[0].send(b"a:1|c").unwrap();
        UnixDatagram::unbound().unwrap().send_to(b"b:1|c", dir.path().join("s")).unwrap();
        clients.truncate(20);
        assert_eq!(count(), Some(20));
    }
}
