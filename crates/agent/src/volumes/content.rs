//! What the files of a ConfigMap, Secret, downward or projected volume are. Pure.

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, Secret,
};

use super::atomic::{File, Payload};
use crate::pod::fields::{self, Place};
use crate::pod::view::spec;

/// Permissions of files when nothing is said.
pub const DEFAULT_MODE: i32 = 0o644;

fn mode(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0) & 0o777
}

/// Picks `items` (all when there are none) of named values; `whose` names the source in errors.
fn pick<'a>(
    mut get: impl FnMut(&str) -> Option<&'a [u8]>,
    all: impl Iterator<Item = &'a String>,
    items: Option<&Vec<KeyToPath>>,
    default_mode: i32,
    optional: bool,
    whose: &str,
) -> Result<Payload, String> {
    let mut out = Payload::new();
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        for key in all {
            let data = get(key).unwrap_or_default().to_vec();
            out.insert(key.clone(), File { data, mode: mode(default_mode), user: None });
        }
        return Ok(out);
    };
    for item in items {
        match get(&item.key) {
            Some(data) => {
                let mode = mode(item.mode.unwrap_or(default_mode));
                out.insert(item.path.clone(), File { data: data.to_vec(), mode, user: None });
            }
            None if optional => {}
            None => return Err(format!("references non-existent {whose} key: {}", item.key)),
        }
    }
    Ok(out)
}

/// The files of a ConfigMap.
pub fn config_map(
    map: &ConfigMap,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: bool,
) -> Result<Payload, String> {
    let text = |key: &str| map.data.as_ref()?.get(key).map(String::as_bytes);
    let binary = |key: &str| map.binary_data.as_ref()?.get(key).map(|b| b.0.as_slice());
    let keys = map.data.iter().flat_map(|d| d.keys());
    let keys = keys.chain(map.binary_data.iter().flat_map(|d| d.keys()));
    pick(|key| text(key).or_else(|| binary(key)), keys, items, mode, optional, "config")
}

/// The files of a Secret.
pub fn secret(
    secret: &Secret,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: bool,
) -> Result<Payload, String> {
    let get = |key: &str| secret.data.as_ref()?.get(key).map(|b| b.0.as_slice());
    let keys = secret.data.iter().flat_map(|d| d.keys());
    pick(get, keys, items, mode, optional, "secret")
}

/// The files of a downward volume.
pub fn downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: i32,
    place: &Place,
) -> Result<Payload, String> {
    let empty = Container::default();
    let mut out = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => fields::field(pod, place, &field.field_path)?,
            (_, Some(resource)) => {
                let container = spec(pod).containers.first().unwrap_or(&empty);
                fields::resource(pod, container, place, resource)?
            }
            _ => continue,
        };
        let mode = mode(item.mode.unwrap_or(default_mode));
        out.insert(item.path.clone(), File { data: text.into_bytes(), mode, user: None });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_and_missing_keys() {
        let map: ConfigMap = serde_json::from_value(
            json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AA=="}}),
        )
        .unwrap();
        let all = config_map(&map, None, DEFAULT_MODE, false).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(all["a"].mode, 0o644);
        let items = vec![KeyToPath { key: "a".into(), path: "x/y".into(), mode: Some(0o400) }];
        let some = config_map(&map, Some(&items), DEFAULT_MODE, false).unwrap();
        assert_eq!(some["x/y"], File { data: b"1".to_vec(), mode: 0o400, user: None });
        let items = vec![KeyToPath { key: "z".into(), path: "z".into(), mode: None }];
        let error = config_map(&map, Some(&items), DEFAULT_MODE, false).unwrap_err();
        assert_eq!(error, "references non-existent config key: z");
        assert!(config_map(&map, Some(&items), DEFAULT_MODE, true).unwrap().is_empty());
    }
}
