//! `coracle image`: the board's images, beside a running agent or without one. Images of whole systems
//! are another matter (`fleet::prepare`).

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use runtime::images::{Registries, Store, hello_archive};
use runtime::{ImageInfo, NativeConfig, RegistryAuth};

use crate::cli::Image;
use crate::config::Common;
use crate::failure::{Hint, Outcome, While};
use crate::server::runtime_config;
use crate::tls;

/// Carries out a command on images.
pub async fn run(common: Common, command: Image) -> Outcome {
    if let Image::Prepare(options) = command {
        return super::fleet::prepare::run(&options);
    }
    let config = runtime_config(&common, "/coracle");
    let store = config
        .image_store()
        .doing(|| format!("opening the images in {}", config.root.display()))
        .hint(|| "use sudo, or name another folder with --data-dir".into())?;
    match command {
        Image::Ls { quiet } => list(&store, quiet),
        Image::Pull { reference, private_registry } => {
            pull(&store, &reference, &private_registry).await
        }
        Image::Import { archives, hello } => import(&store, archives, hello),
        Image::Prepare(_) => Ok(()),
        Image::Rm { references } => remove(&store, &config, &references),
    }
}

fn list(store: &Store, quiet: bool) -> Outcome {
    let mut images = store.list().doing(|| "listing the images".into())?;
    images.sort_by(|a, b| a.tags.cmp(&b.tags));
    let names = |image: &ImageInfo| match image.tags.is_empty() {
        false => image.tags.clone(),
        true if image.digests.is_empty() => vec!["<none>".to_owned()],
        true => image.digests.clone(),
    };
    if quiet {
        images.iter().flat_map(names).for_each(|name| println!("{name}"));
        return Ok(());
    }
    let rows: Vec<(String, &ImageInfo)> =
        images.iter().flat_map(|image| names(image).into_iter().map(move |n| (n, image))).collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("IMAGE".len());
    println!("{:width$}  {:12}  {:>9}", "IMAGE", "ID", "SIZE");
    for (name, image) in rows {
        let id = image.id.0.trim_start_matches("sha256:");
        println!(
            "{name:width$}  {:12}  {:>6.1} MB",
            &id[..id.len().min(12)],
            image.size as f64 / 1e6
        );
    }
    Ok(())
}

async fn pull(store: &Store, reference: &str, registries: &Path) -> Outcome {
    tls::install_provider();
    let registries =
        Registries::load(Some(registries)).doing(|| format!("reading {}", registries.display()))?;
    let id = store
        .pull(&registries, reference, RegistryAuth::Anonymous, None)
        .await
        .doing(|| format!("pulling {reference}"))
        .hint(|| {
            "check the name; a private registry needs its credentials in registries.yaml".into()
        })?;
    println!("{reference} {id}");
    Ok(())
}

fn import(store: &Store, archives: Vec<PathBuf>, hello: bool) -> Outcome {
    for archive in &archives {
        import_one(store, archive, &archive.display().to_string())?;
    }
    if hello {
        let doing = || "packing this binary as an image".to_owned();
        let mut file = tempfile::NamedTempFile::new().doing(doing)?;
        hello_archive(Path::new("/proc/self/exe"), file.as_file_mut()).doing(doing)?;
        file.flush().and_then(|()| file.rewind()).doing(doing)?;
        import_one(store, file.path(), "the hello image")?;
    }
    Ok(())
}

fn import_one(store: &Store, archive: &Path, what: &str) -> Outcome {
    let references = store
        .import(archive)
        .doing(|| format!("importing {what}"))
        .hint(|| "an OCI layout or `docker save` archive is needed, plain or compressed".into())?;
    references.iter().for_each(|reference| println!("{reference}"));
    Ok(())
}

fn remove(store: &Store, config: &NativeConfig, references: &[String]) -> Outcome {
    for reference in references {
        store
            .remove(reference, &config.used())
            .doing(|| format!("removing {reference}"))
            .hint(|| "containers may still use it; delete their pods first".into())?;
        println!("{reference}");
    }
    Ok(())
}
