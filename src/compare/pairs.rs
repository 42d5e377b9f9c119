//! Which layers of two images are compared with each other.

use serde_json::Value;

use super::comparison::{LayerDiff, LayerDifference, LayerId};
use super::fields::{self, Field};
use crate::image::{Descriptor, Image};

/// Two layers to compare, or a layer that only one side has.
pub(super) enum Pair {
    Both(LayerId, LayerId),
    Left(LayerId),
    Right(LayerId),
}

/// Prefix of `created_by` in the history entries of layers that Phial built.
const CREATED_BY_PHIAL: &str = "phial ";

/// The layers of an image with their names. A history with fewer entries than layers is taken to describe the upper ones.
pub(super) fn layers(image: &Image) -> Vec<LayerId> {
    let created_by: Vec<Option<&str>> = image
        .config
        .history
        .iter()
        .filter(|entry| !entry.empty_layer)
        .map(|entry| entry.created_by.as_deref())
        .collect();
    let count = image.manifest.layers.len();
    let history = |at: usize| *created_by.get((at + created_by.len()).checked_sub(count)?)?;
    let named = image.layers().enumerate().map(|(at, layer)| {
        let created_by = history(at).map(str::to_owned);
        let name = created_by.as_deref().and_then(|text| text.strip_prefix(CREATED_BY_PHIAL));
        LayerId {
            name: name.map_or_else(|| format!("layer {}", at + 1), str::to_owned),
            number: at + 1,
            digest: Some(layer.descriptor.digest.clone()),
            diff_id: Some(layer.diff_id.clone()),
            size: Some(layer.descriptor.size),
            created_by,
            compression: layer.compression,
        }
    });
    named.collect()
}

impl LayerId {
    fn is_built_by_phial(&self) -> bool {
        self.created_by.as_deref().is_some_and(|text| text.starts_with(CREATED_BY_PHIAL))
    }

    fn is_same_blob_or_tar(&self, other: &Self) -> bool {
        self.diff_id == other.diff_id || self.digest == other.digest
    }
}

/// Pairs layers with the same tar first, then those with the same `created_by`, then the others in their order. The result is
/// in the order of the right side; layers that only the left side has are where they are there.
pub(super) fn pairs(left: &[LayerId], right: &[LayerId]) -> Vec<Pair> {
    let mut partner: Vec<Option<usize>> = vec![None; right.len()];
    let rules: [fn(&LayerId, &LayerId) -> bool; 3] = [
        LayerId::is_same_blob_or_tar,
        |one, other| one.created_by.is_some() && one.created_by == other.created_by,
        |one, other| !one.is_built_by_phial() && !other.is_built_by_phial(),
    ];
    for rule in rules {
        for (at, other) in right.iter().enumerate() {
            if partner[at].is_none() {
                let free = |(nth, one): &(usize, &LayerId)| !partner.contains(&Some(*nth)) && rule(one, other);
                partner[at] = left.iter().enumerate().find(free).map(|(nth, _)| nth);
            }
        }
    }
    let mut pairs = Vec::new();
    let mut alone = (0..left.len()).filter(|nth| !partner.contains(&Some(*nth))).peekable();
    for (at, other) in right.iter().enumerate() {
        if let Some(nth) = partner[at] {
            while let Some(lower) = alone.next_if(|lower| *lower < nth) {
                pairs.push(Pair::Left(left[lower].clone()));
            }
            pairs.push(Pair::Both(left[nth].clone(), other.clone()));
        } else {
            pairs.push(Pair::Right(other.clone()));
        }
    }
    pairs.extend(alone.map(|nth| Pair::Left(left[nth].clone())));
    pairs
}

/// Adds the differences of paired layers besides their content: order, names, descriptors in the manifest.
pub(super) fn compare_descriptors(left: &Image, right: &Image, layers: &mut [LayerDiff]) {
    let mut highest = 0;
    for layer in layers {
        let (Some(one), Some(other)) = (&layer.left, &layer.right) else { continue };
        if one.number < highest {
            layer.differences.push(LayerDifference::Order);
        }
        highest = highest.max(one.number);
        // The name of other layers is their number, which is the order.
        if one.name != other.name && (one.is_built_by_phial() || other.is_built_by_phial()) {
            layer.differences.push(LayerDifference::Name { left: one.name.clone(), right: other.name.clone() });
        }
        let descriptor = |image: &Image, id: &LayerId| without_digest(&image.manifest.layers[id.number - 1]);
        let fields: Vec<Field> = fields::between(&descriptor(left, one), &descriptor(right, other));
        layer.differences.extend(fields.into_iter().map(|field| LayerDifference::Descriptor { field }));
    }
}

/// A descriptor without its digest and size.
fn without_digest(descriptor: &Descriptor) -> Value {
    let mut value = serde_json::to_value(descriptor).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.remove("digest");
        map.remove("size");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use phial_layers::{Compression, DiffId, Digest};

    fn layer(number: usize, created_by: &str, tar: &str) -> LayerId {
        LayerId {
            name: created_by.strip_prefix(CREATED_BY_PHIAL).unwrap_or("layer").into(),
            number,
            digest: Some(Digest::of(format!("blob {tar}").as_bytes())),
            diff_id: Some(DiffId(Digest::of(tar.as_bytes()))),
            size: Some(1),
            created_by: Some(created_by.into()),
            compression: Compression::None,
        }
    }

    fn drawn(left: &[LayerId], right: &[LayerId]) -> Vec<String> {
        let draw = |pair| match pair {
            Pair::Both(one, other) => format!("{}={}", LayerId::clone(&one).number, LayerId::clone(&other).number),
            Pair::Left(one) => format!("-{}", LayerId::clone(&one).number),
            Pair::Right(other) => format!("+{}", LayerId::clone(&other).number),
        };
        pairs(left, right).into_iter().map(draw).collect()
    }

    #[test]
    fn layers_pair_by_content_then_by_name_then_by_order() {
        let left = [layer(1, "debian", "a"), layer(2, "phial deps", "b"), layer(3, "phial app", "c")];
        let right = [
            layer(1, "debian 13.1", "x"),
            layer(2, "RUN y", "y"),
            layer(3, "phial deps", "d"),
            layer(4, "phial app", "c"),
        ];
        assert_eq!(drawn(&left, &right), ["1=1", "+2", "2=3", "3=4"]);
        assert_eq!(drawn(&right, &left), ["1=1", "-2", "3=2", "4=3"]);
    }

    #[test]
    fn a_layer_that_phial_built_pairs_only_with_one_of_its_name() {
        let left = [layer(1, "phial app", "a"), layer(2, "phial build staging", "s")];
        let right = [layer(1, "phial app", "a"), layer(2, "phial build prod", "p")];
        assert_eq!(drawn(&left, &right), ["1=1", "+2", "-2"]);
    }

    #[test]
    fn a_layer_that_moved_is_found_by_its_tar() {
        let left = [layer(1, "a", "a"), layer(2, "b", "b")];
        let right = [layer(1, "b", "b"), layer(2, "a", "a")];
        assert_eq!(drawn(&left, &right), ["2=1", "1=2"]);
    }
}
