//! Collecting images that nobody uses when the disk fills up.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use runtime::{ContainerFilter, ImageId};

use crate::context::Context;

/// What is remembered of images between two looks.
#[derive(Default)]
pub struct Images {
    last_used: HashMap<ImageId, Instant>,
}

impl Images {
    /// Removes images, longest unused first, until the disk is below the low mark; does nothing
    /// below the high mark. Where `all` that are unused must go, no mark counts.
    pub async fn collect(&mut self, ctx: &Context, all: bool) {
        let runtime = &ctx.runtime;
        let (Ok(images), Ok(containers), Ok(usage)) = (
            runtime.list_images().await,
            runtime.list_containers(ContainerFilter::default()).await,
            runtime.image_fs_usage().await,
        ) else {
            return;
        };
        let now = Instant::now();
        let used: HashSet<&ImageId> = containers.iter().map(|c| &c.image).collect();
        self.last_used.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in &images {
            let seen = self.last_used.entry(image.id.clone()).or_insert(now);
            if used.contains(&image.id) {
                *seen = now;
            }
        }
        let policy = ctx.config.image_gc;
        let capacity = usage.capacity_bytes;
        let taken = capacity.saturating_sub(usage.available_bytes);
        if !all && (capacity == 0 || taken * 100 < capacity * policy.high_percent) {
            return;
        }
        let mut excess = match all {
            true => u64::MAX,
            false => taken.saturating_sub(capacity / 100 * policy.low_percent),
        };
        let mut candidates: Vec<_> = images
            .iter()
            .filter(|image| !image.pinned && !used.contains(&image.id))
            .filter_map(|image| Some((self.last_used.get(&image.id)?, image)))
            .filter(|(seen, _)| now.duration_since(**seen) >= policy.min_age)
            .collect();
        candidates.sort_by_key(|(seen, _)| **seen);
        for (_, image) in candidates {
            if excess == 0 {
                return;
            }
            match runtime.remove_image(&image.id.0).await {
                Ok(()) => {
                    tracing::info!(image = %image.id, "removed an unused image to free disk space");
                    excess = excess.saturating_sub(image.size);
                }
                Err(error) => {
                    tracing::debug!(image = %image.id, error = %base::chain(&error), "image kept")
                }
            }
        }
    }
}
