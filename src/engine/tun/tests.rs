use super::*;

const INSIDE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ETHERNET: Framing = Framing::Ethernet { inside: INSIDE, outside: [2, 0, 0, 0, 0, 2] };

#[test]
fn only_unicast_ip_for_the_inside_address_counts() {
    let header = ETHERNET.header(&[0x45]);
    assert!(ETHERNET.is_for_us(&header));
    assert_eq!(header[12..], [0x08, 0x00]);
    assert_eq!(ETHERNET.header(&[0x60])[12..], [0x86, 0xdd]);
    let mut arp = header;
    arp[13] = 0x06;
    assert!(!ETHERNET.is_for_us(&arp));
    let mut multicast = header;
    multicast[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 2]);
    assert!(!ETHERNET.is_for_us(&multicast));
    assert!(Framing::Ip.is_for_us(&[]));
}

#[test]
fn offsets_follow_the_ethernet_header_and_zero_stays_zero() {
    let with = VnetHdr { flags: VnetHdr::NEEDS_CSUM, csum_start: 20, hdr_len: 40, ..VnetHdr::default() };
    let there = moved(with, 14);
    assert_eq!((there.csum_start, there.hdr_len), (34, 54));
    assert_eq!(moved(there, -14), with);
    assert_eq!(moved(VnetHdr::default(), 14), VnetHdr::default());
    // A nonsense offset from outside does not wrap around.
    assert_eq!(moved(VnetHdr { csum_start: 3, ..with }, -14).csum_start, 0);
}

#[test]
fn a_permission_error_says_what_is_needed() {
    let error = OpenError::new("cannot open /dev/net/tun", io::Error::from_raw_os_error(libc::EACCES));
    assert_eq!(error.to_string(), "cannot open /dev/net/tun: Permission denied (os error 13)");
    assert!(error.hint().contains("CAP_NET_ADMIN"));
}

#[test]
fn a_name_that_is_too_long_is_an_error_before_any_device() {
    let error = sys::hardware_address("a-name-of-more-than-15-bytes").expect_err("too long");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn only_ipv6_from_the_loopback_address_goes_by_lo() {
    let mut packet = [0; 40];
    packet[0] = 0x60;
    packet[23] = 1;
    assert!(is_from_loopback(&packet));
    packet[39] = 1;
    packet[22] = 1;
    assert!(!is_from_loopback(&packet), "to ::1 is not from it");
    assert!(!is_from_loopback(&[0x45; 40]) && !is_from_loopback(&[0x60]) && !is_from_loopback(&[]));
    assert_eq!(LOOPBACK.header(&[0x60]), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x86, 0xdd]);
}
