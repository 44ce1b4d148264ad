//! Places for labels that touch neither each other nor what they stand beside.

use super::svg::Point;

/// A rectangle that something covers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Area {
    /// Its left edge.
    pub left: f64,
    /// Its right edge.
    pub right: f64,
    /// Its upper edge.
    pub top: f64,
    /// Its lower edge.
    pub bottom: f64,
}

impl Area {
    /// The area of a size around its middle.
    pub(crate) fn around((x, y): Point, width: f64, height: f64) -> Self {
        Self { left: x - width / 2.0, right: x + width / 2.0, top: y - height / 2.0, bottom: y + height / 2.0 }
    }

    /// Its middle.
    pub(crate) fn middle(self) -> Point {
        ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0)
    }

    fn touches(self, other: Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    fn holds(self, other: Self) -> bool {
        self.left <= other.left && other.right <= self.right && self.top <= other.top && other.bottom <= self.bottom
    }
}

/// Height of a label.
const HEIGHT: f64 = 12.0;

/// A free place for the label of each point, near it and inside `frame`, in the order of the points; `None` where there is
/// none. `labels` are the widths of the labels, of the first points only where there are fewer; `taken` is what is covered.
pub(crate) fn beside(points: &[Point], labels: &[f64], mut taken: Vec<Area>, frame: Area) -> Vec<Option<Area>> {
    let place = |(&(x, y), &width): (&Point, &f64)| {
        let rings = (0..40).map(|ring| 12.0 + 6.0 * f64::from(ring));
        let around =
            rings.flat_map(|radius| (0..16).map(move |turn| (radius, f64::from(turn) * std::f64::consts::TAU / 16.0)));
        let mut areas = around
            .map(|(radius, angle)| Area::around((x + radius * angle.cos(), y - radius * angle.sin()), width, HEIGHT));
        let free = areas.find(|area| frame.holds(*area) && !taken.iter().any(|other| other.touches(*area)));
        taken.extend(free);
        free
    };
    points.iter().zip(labels).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_touch_neither_each_other_nor_points() {
        let frame = Area { left: 0.0, top: 0.0, right: 600.0, bottom: 400.0 };
        let points: Vec<Point> = (0..60).map(|i| (300.0 + f64::from(i % 3), 200.0 + f64::from(i / 20))).collect();
        let dots: Vec<Area> = points.iter().map(|&at| Area::around(at, 8.0, 8.0)).collect();
        let places: Vec<Area> =
            beside(&points, &[15.0; 60], dots.clone(), frame).into_iter().map(Option::unwrap).collect();
        for (i, place) in places.iter().enumerate() {
            assert!(frame.holds(*place));
            assert!(places.iter().skip(i + 1).chain(&dots).all(|other| !place.touches(*other)));
        }
        assert_eq!(beside(&points[..1], &[700.0], Vec::new(), frame), [None]);
    }
}
