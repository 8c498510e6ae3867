//! A BMC's system GUID as text, the same whichever driver asked for it.

use uuid::Uuid;

/// The bytes of a Get System GUID answer as text. The specification sends them last byte first (IPMI 2.0 §20.8), SMBIOS has
/// the first three fields in the other order, and many BMCs send them as they are written: the first order in which version
/// and variant are possible is taken, so that it mostly reads as Redfish and `dmidecode` show it. Mostly: some make sense in
/// two orders (Dell's often do), and of those `ipmitool mc guid` shows the other one. The same BMC always gives the same
/// text. Unset ones identify nothing.
#[must_use]
pub fn text(guid: [u8; 16]) -> Option<String> {
    if guid.iter().all(|byte| *byte == 0) || guid.iter().all(|byte| *byte == 0xFF) {
        return None;
    }
    let mut reversed = guid;
    reversed.reverse();
    let orders = [Uuid::from_bytes(guid), Uuid::from_bytes(reversed), Uuid::from_bytes_le(guid)];
    let possible = |uuid: &&Uuid| uuid.get_variant() == uuid::Variant::RFC4122 && (1..=8).contains(&uuid.get_version_num());
    Some(orders.iter().find(possible).unwrap_or(&Uuid::from_bytes(guid)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_reads_the_same_in_every_order_of_its_bytes() {
        let written = "5f6f3a2c-91d4-4e02-b7a6-0123456789ab";
        let uuid: Uuid = written.parse().unwrap();
        let mut reversed = *uuid.as_bytes();
        reversed.reverse();
        for bytes in [*uuid.as_bytes(), reversed, uuid.to_bytes_le()] {
            assert_eq!(text(bytes).as_deref(), Some(written), "{bytes:02x?}");
        }
        let dell = Uuid::parse_str("4c4c4544-0042-4410-8057-b4c04f564433").unwrap();
        assert_eq!(text(dell.to_bytes_le()).as_deref(), Some("44454c4c-4200-1044-8057-b4c04f564433"), "it cannot be told");
        assert_eq!(text([0; 16]), None);
        assert_eq!(text([0xFF; 16]), None);
        assert_eq!(text([7; 16]).as_deref(), Some("07070707-0707-0707-0707-070707070707"), "no order makes sense of it");
    }
}
