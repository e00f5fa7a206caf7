//! The frames that are moved, with the virtio-net header before them.

/// Longer frames than this are segments that are to be cut.
pub(crate) const LONGEST_PLAIN: usize = 9000;
/// Bytes of payload in each piece of a segment.
const PIECE: u16 = 1448;
/// Bytes of headers before the payload: Ethernet, IPv4 and TCP.
const HEADERS: u16 = 54;

/// How many frames of 1514 bytes, or one less, carry what a frame of this size does.
pub(crate) fn pieces(size: usize) -> usize {
    if size > LONGEST_PLAIN { (size - usize::from(HEADERS)).div_ceil(PIECE.into()) } else { 1 }
}

/// A frame after the ten bytes of a header, which is for a segment where the frame is a long one, and `more` zeros: a driver's
/// header has two bytes more than that of a packet socket.
pub(crate) fn frame(size: usize, more: usize) -> Vec<u8> {
    let mut frame = vec![0; size];
    // To nobody who is there, by an experimental type: it goes no further than the netdev.
    frame[..14].copy_from_slice(&[0x02, 0, 0, 0, 0, 9, 0x02, 0, 0, 0, 0, 8, 0x88, 0xb5]);
    let mut header = vec![0; 10];
    if size > LONGEST_PLAIN {
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        let length = u16::try_from(size - 14).unwrap_or(u16::MAX).to_be_bytes();
        frame[14..34].copy_from_slice(&[
            0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
        ]);
        let sum: u32 =
            frame[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[24..26].copy_from_slice(&folded.to_be_bytes());
        frame[34..38].copy_from_slice(&[0x30, 0x39, 0x30, 0x39]);
        frame[46] = 0x50;
        // NEEDS_CSUM, TCPV4, its headers and pieces, the checksum 16 bytes after byte 34.
        let fields = [HEADERS, PIECE, 34, 16].map(u16::to_le_bytes);
        header = [1, 1].into_iter().chain(fields.into_iter().flatten()).collect();
    }
    header.resize(10 + more, 0);
    header.extend(frame);
    header
}
