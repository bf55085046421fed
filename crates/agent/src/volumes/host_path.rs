//! `hostPath` and its types.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// Checks that the path is of the wanted type; makes it for the types that say so.
pub fn check(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let wanted = source.type_.as_deref().unwrap_or_default();
    let failed = |error: std::io::Error| format!("making {}: {error}", path.display());
    let mut kind = fs::metadata(path).map(|meta| meta.file_type()).ok();
    if kind.is_none() {
        match wanted {
            // A path without a type that does not exist becomes a directory, as runtimes do it.
            "DirectoryOrCreate" | "" => fs::create_dir_all(path)
                .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
                .map_err(failed)?,
            "FileOrCreate" => fs::File::create_new(path)
                .and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o644)))
                .map_err(failed)?,
            _ => {}
        }
        kind = fs::metadata(path).map(|meta| meta.file_type()).ok();
    }
    let fits = kind.is_some_and(|kind| match wanted {
        "Directory" | "DirectoryOrCreate" => kind.is_dir(),
        "File" | "FileOrCreate" => kind.is_file(),
        "Socket" => kind.is_socket(),
        "CharDevice" => kind.is_char_device(),
        "BlockDevice" => kind.is_block_device(),
        _ => true,
    });
    if fits {
        Ok(())
    } else {
        Err(format!("hostPath type check failed: {} is not a {}", source.path, name(wanted)))
    }
}

fn name(wanted: &str) -> &'static str {
    match wanted {
        "Directory" | "DirectoryOrCreate" => "directory",
        "File" | "FileOrCreate" => "file",
        "Socket" => "socket file",
        "CharDevice" => "character device",
        "BlockDevice" => "block device",
        _ => "path",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, kind: &str| {
            let path = dir.path().join(name).display().to_string();
            check(&HostPathVolumeSource { path, type_: Some(kind.into()) })
        };
        assert!(check("d", "DirectoryOrCreate").is_ok() && check("d", "Directory").is_ok());
        assert!(check("f", "FileOrCreate").is_ok() && check("f", "File").is_ok());
        assert!(check("none", "").is_ok());
        let error = check("d", "File").unwrap_err();
        assert!(
            error.starts_with("hostPath type check failed:") && error.ends_with("is not a file")
        );
        assert!(check("none2", "Socket").unwrap_err().ends_with("is not a socket file"));
    }
}
