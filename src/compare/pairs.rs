//! Which layer of one image belongs to which of the other.

use serde_json::Value;

use super::fields::{self, Field};
use super::{LayerDiff, LayerId, LayerWhy};
use crate::image::{Descriptor, Image};

/// Layers that are compared with each other, or stand alone.
pub(super) enum Pair {
    Both(LayerId, LayerId),
    Left(LayerId),
    Right(LayerId),
}

/// What a layer of ours says in the history before its name.
const OURS: &str = "phial ";

/// The layers of an image with their names. Where the history tells of fewer layers than there are, it tells of the upper
/// ones.
pub(super) fn layers(image: &Image) -> Vec<LayerId> {
    let told: Vec<Option<&str>> = image
        .config
        .history
        .iter()
        .filter(|entry| !entry.empty_layer)
        .map(|entry| entry.created_by.as_deref())
        .collect();
    let count = image.manifest.layers.len();
    let of = |at: usize| *told.get((at + told.len()).checked_sub(count)?)?;
    let named = image.layers().enumerate().map(|(at, layer)| {
        let created_by = of(at).map(str::to_owned);
        let ours = created_by.as_deref().and_then(|text| text.strip_prefix(OURS));
        LayerId {
            name: ours.map_or_else(|| format!("layer {}", at + 1), str::to_owned),
            place: at + 1,
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
    fn is_ours(&self) -> bool {
        self.created_by.as_deref().is_some_and(|text| text.starts_with(OURS))
    }

    fn is_same_blob_or_tar(&self, other: &Self) -> bool {
        self.diff_id == other.diff_id || self.digest == other.digest
    }
}

/// First those with the same tar, then those that came about in the same way, then the others in their order. The result
/// goes from the lowest layer of the right side to the highest, with a layer of the left alone where it stood.
pub(super) fn pairs(left: &[LayerId], right: &[LayerId]) -> Vec<Pair> {
    let mut of: Vec<Option<usize>> = vec![None; right.len()];
    let rules: [fn(&LayerId, &LayerId) -> bool; 3] = [
        LayerId::is_same_blob_or_tar,
        |one, other| one.created_by.is_some() && one.created_by == other.created_by,
        |one, other| !one.is_ours() && !other.is_ours(),
    ];
    for rule in rules {
        for (at, other) in right.iter().enumerate() {
            if of[at].is_none() {
                let free = |(nth, one): &(usize, &LayerId)| !of.contains(&Some(*nth)) && rule(one, other);
                of[at] = left.iter().enumerate().find(free).map(|(nth, _)| nth);
            }
        }
    }
    let mut pairs = Vec::new();
    let mut alone = (0..left.len()).filter(|nth| !of.contains(&Some(*nth))).peekable();
    for (at, other) in right.iter().enumerate() {
        if let Some(nth) = of[at] {
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

/// What differs about paired layers besides their content: order, names, and what the manifest says of them.
pub(super) fn whole(left: &Image, right: &Image, layers: &mut [LayerDiff]) {
    let mut highest = 0;
    for layer in layers {
        let (Some(one), Some(other)) = (&layer.left, &layer.right) else { continue };
        if one.place < highest {
            layer.why.push(LayerWhy::Spec);
        }
        highest = highest.max(one.place);
        // A layer that is not ours is called by its place, which says nothing about it.
        if one.name != other.name && (one.is_ours() || other.is_ours()) {
            layer.why.push(LayerWhy::Name { left: one.name.clone(), right: other.name.clone() });
        }
        let of = |image: &Image, id: &LayerId| rest(&image.manifest.layers[id.place - 1]);
        let fields: Vec<Field> = fields::between(&of(left, one), &of(right, other));
        layer.why.extend(fields.into_iter().map(|field| LayerWhy::Descriptor { field }));
    }
}

/// A descriptor without its digest and size.
fn rest(descriptor: &Descriptor) -> Value {
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

    fn layer(place: usize, created_by: &str, tar: &str) -> LayerId {
        LayerId {
            name: created_by.strip_prefix(OURS).unwrap_or("layer").into(),
            place,
            digest: Some(Digest::of(format!("blob {tar}").as_bytes())),
            diff_id: Some(DiffId(Digest::of(tar.as_bytes()))),
            size: Some(1),
            created_by: Some(created_by.into()),
            compression: Compression::None,
        }
    }

    fn drawn(left: &[LayerId], right: &[LayerId]) -> Vec<String> {
        let draw = |pair| match pair {
            Pair::Both(one, other) => format!("{}={}", LayerId::clone(&one).place, LayerId::clone(&other).place),
            Pair::Left(one) => format!("-{}", LayerId::clone(&one).place),
            Pair::Right(other) => format!("+{}", LayerId::clone(&other).place),
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
    fn a_layer_of_ours_pairs_with_its_namesake_only() {
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
