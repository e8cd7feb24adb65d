//! Draws a [`Chart`] at one size, as the content of an SVG.
//!
//! A [`Scale`] maps values to fractions of the plot, which are then scaled to drawing units (about
//! a pixel each).

use super::chart::{Chart, Series, class};
use super::escape::escape;
use super::scale::{Scale, figure};

/// The size of a drawing and the style class that selects it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) class: &'static str,
    pub(super) width: f64,
    pub(super) height: f64,
}

// Margins around the plot, for the y label and the x axis's two lines of text.
const TOP: f64 = 26.0;
const BOTTOM: f64 = 44.0;
/// Height of a line of text.
const LINE: f64 = 15.0;
/// Maximum average width of a character.
const CHARACTER: f64 = 8.0;
/// Distance between labels and the plot.
const GAP: f64 = 8.0;
/// Minimum margins at the left and at the right.
const SIDE: f64 = 40.0;
/// Maximum number of points drawn as dots with a tooltip.
const DOTS: usize = 60;

/// Draws axes, lines and last values. At least one series must have points.
pub(super) fn draw(chart: &Chart, size: Size) -> String {
    let plot = Plot::new(chart, size);
    let mut svg = plot.axes(chart);
    for (index, series) in chart.series.iter().enumerate() {
        svg += &format!("<g class=\"{}\">\n{}</g>\n", class(index), plot.line(series, chart.is_smoothed(series)));
    }
    svg + &plot.last_values(chart)
}

struct Plot {
    size: Size,
    /// Margin for the labels of the y axis.
    left: f64,
    /// Margin for the last values.
    right: f64,
    x: Scale,
    y: Scale,
}

impl Plot {
    fn new(chart: &Chart, size: Size) -> Self {
        let points = || chart.series.iter().flat_map(|series| &series.points);
        let range = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
        };
        let (first, last) = range(&mut points().map(|point| point.0));
        let (low, high) = range(&mut points().map(|point| point.1));
        let y = match chart.is_log {
            true => Scale::log(low, high, 6),
            false => Scale::bounded(low, high, chart.bounds, 5),
        };
        let last_values = chart.series.iter().filter_map(|series| Some(figure(series.points.last()?.1)));
        let left = margin(y.ticks().into_iter().map(|(_, name)| name));
        let right = margin(last_values);
        let about = ((size.width - left - right) / 60.0) as usize;
        let is_counted = points().all(|point| point.0.fract() == 0.0);
        let x = if is_counted { Scale::counted(first, last, about) } else { Scale::linear(first, last, about) };
        Self { size, left, right, x, y }
    }

    fn at_x(&self, x: f64) -> f64 {
        self.left + self.x.place(x) * (self.size.width - self.left - self.right)
    }

    fn at_y(&self, y: f64) -> f64 {
        self.size.height - BOTTOM - self.y.place(y) * (self.size.height - TOP - BOTTOM)
    }

    fn axes(&self, chart: &Chart) -> String {
        let (left, right) = (short(self.left), short(self.size.width - self.right));
        let bottom = self.size.height - BOTTOM;
        let mut svg = String::new();
        for (value, name) in self.y.ticks() {
            let y = short(self.at_y(value));
            svg += &format!("<path class=\"grid\" d=\"M{left} {y}H{right}\"/>");
            svg +=
                &format!("<text class=\"end\" x=\"{}\" y=\"{y}\" dy=\".34em\">{name}</text>\n", short(self.left - GAP));
        }
        svg += &format!("<path class=\"axis\" d=\"M{left} {bottom}H{right}\"/>\n");
        for (value, name) in self.x.ticks() {
            let x = short(self.at_x(value));
            svg += &format!("<path class=\"axis\" d=\"M{x} {bottom}v4\"/>");
            svg += &format!("<text class=\"middle\" x=\"{x}\" y=\"{}\">{name}</text>\n", bottom + 18.0);
        }
        let log = if chart.is_log { " (log scale)" } else { "" };
        svg += &format!("<text class=\"name\" x=\"0\" y=\"12\">{}{log}</text>\n", escape(&chart.y_name));
        let y = bottom + 37.0;
        svg + &format!("<text class=\"name end\" x=\"{right}\" y=\"{y}\">{}</text>\n", escape(&chart.x_name))
    }

    fn line(&self, series: &Series, is_smoothed: bool) -> String {
        let Some(last) = series.points.last() else { return String::new() };
        let mut svg = String::new();
        if is_smoothed {
            svg += &self.path("line faint", &series.points);
            svg += &self.path("line", &running_mean(&series.points));
        } else if series.points.len() > 1 {
            svg += &self.path("line", &series.points);
        }
        if series.points.len() <= DOTS {
            for (x, y) in &series.points {
                svg += &format!(
                    "<circle cx=\"{}\" cy=\"{}\" r=\"3\"><title>{}: {} at {}</title></circle>\n",
                    short(self.at_x(*x)),
                    short(self.at_y(*y)),
                    escape(&series.name),
                    figure(*y),
                    figure(*x)
                );
            }
        } else {
            svg +=
                &format!("<circle cx=\"{}\" cy=\"{}\" r=\"3\"/>\n", short(self.at_x(last.0)), short(self.at_y(last.1)));
        }
        svg
    }

    fn path(&self, class: &str, points: &[(f64, f64)]) -> String {
        let placed: Vec<_> = points.iter().map(|(x, y)| (self.at_x(*x), self.at_y(*y))).collect();
        let path: Vec<_> = thin(&placed).into_iter().map(|(x, y)| format!("{} {}", short(x), short(y))).collect();
        format!("<path class=\"{class}\" d=\"M{}\"/>\n", path.join("L"))
    }

    /// The last value of each series at the right edge, spread apart where they would overlap.
    fn last_values(&self, chart: &Chart) -> String {
        let mut labels: Vec<(f64, usize, f64)> = Vec::new();
        for (index, series) in chart.series.iter().enumerate() {
            labels.extend(series.points.last().map(|last| (self.at_y(last.1), index, last.1)));
        }
        let (top, bottom) = (TOP, self.size.height - BOTTOM);
        if labels.len() as f64 * LINE > bottom - top {
            return String::new();
        }
        labels.sort_by(|left, right| left.0.total_cmp(&right.0));
        let mut free_from = top;
        for label in &mut labels {
            label.0 = label.0.max(free_from);
            free_from = label.0 + LINE;
        }
        let mut free_to = bottom;
        for label in labels.iter_mut().rev() {
            label.0 = label.0.min(free_to);
            free_to = label.0 - LINE;
        }
        let x = short(self.size.width - self.right + GAP);
        let text = |(y, index, value): (f64, usize, f64)| {
            let (class, y, value) = (class(index), short(y), figure(value));
            format!("<text class=\"last {class}\" x=\"{x}\" y=\"{y}\" dy=\".34em\">{value}</text>\n")
        };
        labels.into_iter().map(text).collect()
    }
}

/// The margin needed for the longest label.
fn margin(labels: impl Iterator<Item = String>) -> f64 {
    let longest = labels.map(|label| label.chars().count()).max().unwrap_or(0);
    (longest as f64 * CHARACTER + GAP + 4.0).max(SIDE)
}

/// Formats a coordinate to a tenth of a unit.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_string)
}

/// Keeps the lowest and highest point per unit of width, and both ends, so that the line looks the
/// same.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept = Vec::new();
    for column in points.chunk_by(|left, right| left.0.floor() == right.0.floor()) {
        let by_height = |left: &&(f64, f64), right: &&(f64, f64)| left.1.total_cmp(&right.1);
        let (Some(low), Some(high)) = (column.iter().min_by(by_height), column.iter().max_by(by_height)) else {
            continue;
        };
        let [first, second] = if low.0 <= high.0 { [low, high] } else { [high, low] };
        kept.push(*first);
        if first != second {
            kept.push(*second);
        }
    }
    if let (Some(first), Some(last)) = (points.first(), points.last()) {
        if kept.first() != Some(first) {
            kept.insert(0, *first);
        }
        if kept.last() != Some(last) {
            kept.push(*last);
        }
    }
    kept
}

/// A running mean over a fiftieth of the points; a least-squares line through the window, which at
/// the ends does not lag behind the curve as a mean would.
fn running_mean(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = (points.len() / 100).max(1);
    let (mut sums, mut moments) = (vec![0.0], vec![0.0]);
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for (index, point) in points.iter().enumerate() {
        sums.push(sums[index] + point.1);
        moments.push(moments[index] + point.1 * index as f64);
        (low, high) = (low.min(point.1), high.max(point.1));
    }
    let mean = |(index, point): (usize, &(f64, f64))| {
        let (from, to) = (index.saturating_sub(reach), (index + reach + 1).min(points.len()));
        let count = (to - from) as f64;
        let middle = (from + to - 1) as f64 / 2.0;
        let sum = sums[to] - sums[from];
        // Least squares: Σ (i - middle) y over Σ (i - middle)², which for whole i is n (n² - 1) / 12.
        let spread = (count * (count * count - 1.0) / 12.0).max(1.0);
        let slope = (moments[to] - moments[from] - middle * sum) / spread;
        // Clamp to the data: a logarithmic axis cannot show values that are not positive.
        (point.0, (sum / count + slope * (index as f64 - middle)).max(low).min(high))
    };
    points.iter().enumerate().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_extremes_and_ends() {
        let mut points: Vec<_> =
            (0..10_000).map(|index| (f64::from(index) / 100.0, f64::from(index * 31 % 17))).collect();
        points[5_555].1 = 400.0;
        points[7_777].1 = -400.0;
        let kept = thin(&points);
        assert!(kept.len() <= 2 * 100 + 2, "{}", kept.len());
        assert!(kept.contains(&points[5_555]) && kept.contains(&points[7_777]));
        assert_eq!((kept.first(), kept.last()), (points.first(), points.last()));
        assert!(kept.is_sorted_by(|left, right| left.0 <= right.0));
    }

    #[test]
    fn labels_of_small_rates_and_large_numbers_fit_in_the_margins() {
        for (value, longest) in [(0.002, "0.0020"), (1e-7, "1.5e−7"), (123_456.0, "180k"), (1e7, "15M")] {
            let chart = Chart::new("a", "step", "b").series("c", vec![(1.0, value), (2.0, value / 4.0)]);
            let plot = Plot::new(&chart, Size { class: "narrow", width: 372.0, height: 270.0 });
            let labels: Vec<String> = plot.y.ticks().into_iter().map(|(_, name)| name).collect();
            let needed = labels.iter().map(|label| label.chars().count()).max().unwrap();
            assert!(needed <= longest.chars().count(), "{labels:?}");
            assert!(plot.left >= 7.0 * needed as f64 + GAP, "{labels:?} in {}", plot.left);
        }
    }

    #[test]
    fn few_points_are_kept_as_they_are() {
        let points = [(0.0, 1.0), (10.0, 5.0), (20.5, 2.0)];
        assert_eq!(thin(&points), points);
        assert!(thin(&[]).is_empty());
    }

    #[test]
    fn the_running_mean_of_a_line_is_the_line() {
        let points: Vec<_> = (0..1000).map(|index| (f64::from(index), 3.0 * f64::from(index))).collect();
        for (mean, point) in running_mean(&points).iter().zip(&points) {
            assert!((mean.1 - point.1).abs() < 1e-9);
        }
    }
}
