//! Counts the live StatsD clients of the app, and what the kernel dropped at our sockets, from `/proc/net/udp{,6}`; the clients
//! of our Unix datagram socket are counted by `unixgram`.
//!
//! A leaked client keeps its socket, and a connected socket is a row with our port as its remote one: so the table tells a leak
//! of clients from mere churn, for every client library, without any right. The tables are shared by all in the pod, may have
//! a hundred thousand rows when a leak is old, and are read as a stream up to [`MAX_ROWS`], with nothing kept per row.

mod unixgram;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::pipeline::Census;

/// Rows read of a table. The kernel begins anew at the first socket for each 4 KiB that are read, so its cost grows with the
/// square of the rows: 0.45 s for 20,000 of them on Linux 6.18. A leak as large as this is told all the same.
pub const MAX_ROWS: usize = 16_384;

/// Users told apart; a pod has one or two.
const MAX_USERS: usize = 64;

/// Longest row looked at; the kernel writes 128 bytes for IPv4 and about 180 for IPv6.
const MAX_ROW: u64 = 1024;

/// What is ours in the tables.
#[derive(Clone, Debug, Default)]
pub struct Ours {
    /// Ports on which StatsD is taken.
    pub ports: Vec<u16>,
    /// Our own sockets, left out of the count. Empty when unknown: then drops go by port alone.
    pub inodes: Vec<u64>,
    /// Our Unix datagram socket.
    pub unixgram: Option<u64>,
    /// Open connections of our Unix stream socket, as its source counts them.
    pub connections: Option<u64>,
}

/// Reads the tables below `proc`.
pub fn take(proc: &Path, ours: &Ours) -> Census {
    let mut count = Count::default();
    for name in ["udp", "udp6"] {
        if let Some(table) = open(proc, name) {
            count.table(table, ours);
        }
    }
    let census = count.census();
    let unixgram = |inode| open(proc, "unix").and_then(|table| unixgram::clients(table, inode));
    let transports =
        [(!ours.ports.is_empty()).then_some(census.clients), ours.unixgram.map(unixgram), ours.connections.map(Some)];
    // A part must not pass for all: where one transport cannot be counted, the sum is unknown.
    Census { clients: transports.into_iter().flatten().sum(), ..census }
}

fn open(proc: &Path, table: &str) -> Option<BufReader<File>> {
    File::open(proc.join("net").join(table)).ok().map(|file| BufReader::with_capacity(64 * 1024, file))
}

#[derive(Debug, Default)]
struct Count {
    tables: usize,
    clients: u64,
    users: Vec<(u32, u64)>,
    drops: u64,
}

impl Count {
    fn table(&mut self, mut rows: impl BufRead, ours: &Ours) {
        let mut line = Vec::with_capacity(256);
        for _ in 0..MAX_ROWS {
            line.clear();
            match std::io::Read::take(&mut rows, MAX_ROW).read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => self.line(&line, ours),
                // Half a table must not pass for all of it.
                Err(_) => return,
            }
        }
        self.tables += 1;
    }

    fn line(&mut self, line: &[u8], ours: &Ours) {
        let Some(row) = std::str::from_utf8(line).ok().and_then(Row::parse) else { return };
        let own = ours.inodes.contains(&row.inode);
        if ours.ports.contains(&row.local.1) && (own || ours.inodes.is_empty()) {
            self.drops = self.drops.saturating_add(row.drops);
        }
        if !own && ours.ports.contains(&row.remote.1) && row.is_local() {
            self.clients += 1;
            self.user(row.uid);
        }
    }

    fn user(&mut self, uid: u32) {
        match self.users.iter().position(|(known, _)| *known == uid) {
            Some(place) => self.users[place].1 += 1,
            None if self.users.len() < MAX_USERS => self.users.push((uid, 1)),
            None => {}
        }
    }

    fn census(&self) -> Census {
        let most = self.users.iter().max_by_key(|(uid, count)| (*count, std::cmp::Reverse(*uid)));
        Census {
            clients: (self.tables > 0).then_some(self.clients),
            uid: most.map(|(uid, _)| *uid),
            kernel_drops: self.drops,
        }
    }
}

/// The fields of a row that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    uid: u32,
    inode: u64,
    drops: u64,
}

impl Row {
    /// `sl local remote st tx:rx tr:when retrnsmt uid timeout inode ref pointer drops`
    fn parse(line: &str) -> Option<Row> {
        let mut words = line.split_ascii_whitespace();
        let (local, remote) = (address(words.nth(1)?)?, address(words.next()?)?);
        let uid = words.nth(4)?.parse().ok()?;
        let inode = words.nth(1)?.parse().ok()?;
        let drops = words.nth(2)?.parse().ok()?;
        Some(Row { local, remote, uid, inode, drops })
    }

    /// The other end is in this pod: the loopback, or the pod's own address, from which then the sender sends as well.
    fn is_local(&self) -> bool {
        self.remote.0.is_loopback() || (self.remote.0 == self.local.0 && !self.remote.0.is_unspecified())
    }
}

/// `0100007F:1FBD`: each 32-bit word of the address as a number in this machine's byte order; IPv4 in IPv6 is unwrapped.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = [0; 16];
    if !address.is_ascii() || !matches!(address.len(), 8 | 32) {
        return None;
    }
    for (word, bytes) in (0..address.len() / 8).zip(bytes.chunks_exact_mut(4)) {
        let number = u32::from_str_radix(&address[word * 8..word * 8 + 8], 16).ok()?;
        bytes.copy_from_slice(&number.to_ne_bytes());
    }
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        _ => IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(),
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fixture::Fixture;

    const HEAD: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";

    fn row(local: &str, remote: &str, uid: u32, inode: u64, drops: u64) -> String {
        format!(
            "  102: {local} {remote} 01 00000000:00000000 00:00000000 00000000 {uid:5}        0 {inode} 2 0000000000000000 {drops}         \n"
        )
    }

    fn ours() -> Ours {
        Ours { ports: vec![8125], inodes: vec![77], ..Ours::default() }
    }

    fn check(rows: &str, ours: &Ours, clients: u64, uid: Option<u32>, drops: u64) {
        let mut count = Count::default();
        count.table(format!("{HEAD}{rows}").as_bytes(), ours);
        assert_eq!(count.census(), Census { clients: Some(clients), uid, kernel_drops: drops }, "{rows}");
    }

    #[test]
    fn rows_whose_remote_port_is_ours_are_clients() {
        let client = row("0100007F:D001", "0100007F:1FBD", 1000, 5, 0);
        check(&client, &ours(), 1, Some(1000), 0);
        let other_port = row("0100007F:D001", "0100007F:1FBE", 1000, 5, 0);
        check(&other_port, &ours(), 0, None, 0);
        let unconnected = row("0100007F:D001", "00000000:0000", 1000, 5, 0);
        check(&unconnected, &ours(), 0, None, 0);
    }

    #[test]
    fn only_clients_of_this_pod_count() {
        let node_agent = row("0500000A:D001", "0100000A:1FBD", 1000, 5, 0);
        check(&node_agent, &ours(), 0, None, 0);
        let own_address = row("0500000A:D001", "0500000A:1FBD", 1000, 5, 0);
        check(&own_address, &ours(), 1, Some(1000), 0);
    }

    #[test]
    fn ipv6_and_ipv4_in_ipv6_count_too() {
        let six = "00000000000000000000000001000000";
        let (mapped, other) = ("0000000000000000FFFF00000100007F", "0000000000000000FFFF00000200007F");
        let rows = row(&format!("{six}:D001"), &format!("{six}:1FBD"), 7, 5, 0)
            + &row(&format!("{other}:D001"), &format!("{mapped}:1FBD"), 7, 6, 0);
        check(&rows, &ours(), 2, Some(7), 0);
    }

    #[test]
    fn our_own_sockets_are_no_clients_and_their_drops_are_summed() {
        let listening = row("0100007F:1FBD", "00000000:0000", 0, 77, 12);
        let strange = row("0100007F:1FBD", "00000000:0000", 0, 78, 100);
        let connected = row("0100007F:D001", "0100007F:1FBD", 0, 77, 0);
        let rows = listening + &strange + &connected;
        check(&rows, &ours(), 0, None, 12);
        check(&rows, &Ours { inodes: vec![], ..ours() }, 1, Some(0), 112);
    }

    #[test]
    fn the_user_with_most_clients_is_told() {
        let rows: String =
            (0..5).map(|n| row("0100007F:D001", "0100007F:1FBD", if n < 2 { 10 } else { 20 }, 100 + n, 0)).collect();
        check(&rows, &ours(), 5, Some(20), 0);
        let many: String = (0..1000).map(|n| row("0100007F:D001", "0100007F:1FBD", n, 100, 0)).collect();
        check(&many, &ours(), 1000, Some(0), 0);
    }

    #[test]
    fn a_table_without_end_is_read_so_far() {
        let rows = row("0100007F:D001", "0100007F:1FBD", 1, 5, 0).repeat(20_000);
        // One of the rows is the head.
        check(&rows, &ours(), MAX_ROWS as u64 - 1, Some(1), 0);
    }

    #[test]
    fn rows_of_nonsense_are_passed_over() {
        let long = "x".repeat(5000) + "\n";
        let rows = format!("\n::\n 1: 0100007F 0100007F:1FBD\n 1: ééé7F:1FBD 0100007F:1FBD 1\n{long}")
            + &row("0100007F:D001", "0100007F:1FBD", 1, 5, 0);
        check(&rows, &ours(), 1, Some(1), 0);
    }

    #[test]
    fn a_table_that_cannot_be_read_is_unknown_and_not_zero() {
        let fixture = Fixture::new();
        assert_eq!(take(&fixture.proc(), &ours()), Census::default());
        fixture.write("proc/net/udp6", HEAD);
        assert_eq!(take(&fixture.proc(), &ours()).clients, Some(0));
    }

    #[test]
    fn clients_of_all_transports_are_added_up() {
        let fixture = Fixture::new();
        fixture.write("proc/net/udp", &format!("{HEAD}{}", row("0100007F:D001", "0100007F:1FBD", 1000, 5, 0)));
        fixture.write("proc/net/unix", "00000000e8dbbdd4: 00000006 00000000 00000000 0002 03 55 /dsd.socket\n");
        let all = Ours { unixgram: Some(55), connections: Some(10), ..ours() };
        assert_eq!(take(&fixture.proc(), &all).clients, Some(1 + 4 + 10));
        assert_eq!(take(&fixture.proc(), &Ours { unixgram: Some(56), ..all }).clients, None);
        let alone = Ours { connections: Some(0), ..Ours::default() };
        assert_eq!(take(Path::new("/nowhere"), &alone).clients, Some(0));
    }

    #[test]
    fn the_kernels_own_table_shows_a_connected_socket() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let ours = Ours { ports: vec![server.local_addr().unwrap().port()], ..Ours::default() };
        let before = take(Path::new("/proc"), &ours).clients.unwrap();
        let clients: Vec<_> = (0..3).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        clients.iter().for_each(|client| client.connect(server.local_addr().unwrap()).unwrap());
        assert_eq!((before, take(Path::new("/proc"), &ours).clients), (0, Some(3)));
    }
}
