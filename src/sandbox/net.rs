//! Brings up the loopback interface of a new network namespace. One netlink message by hand, in place of a netlink
//! crate.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// Brings up `lo`: sends one `RTM_NEWLINK` (rtnetlink(7)) and reads the acknowledgement.
pub(super) fn loopback_up() -> io::Result<()> {
    // Protocol `None` is 0, which is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (read, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    // nlmsghdr (16 bytes), then nlmsgerr, whose first field is a negative errno or 0.
    let code = answer.get(16..20).filter(|_| read >= 20).and_then(|field| field.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// `nlmsghdr` and `ifinfomsg`: interface 1, which is `lo` in every new namespace, gets `IFF_UP`.
fn request() -> [u8; 32] {
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    const IFF_UP: u32 = 1;
    let mut message = [0; 32];
    message[0..4].copy_from_slice(&32_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_AND_ACK.to_ne_bytes());
    message[20..24].copy_from_slice(&1_i32.to_ne_bytes());
    message[24..28].copy_from_slice(&IFF_UP.to_ne_bytes());
    message[28..32].copy_from_slice(&IFF_UP.to_ne_bytes());
    message
}
