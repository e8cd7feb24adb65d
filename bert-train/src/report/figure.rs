//! Renders a [`Chart`] as an HTML figure with a text description.
//!
//! The chart is drawn twice, for wide and for narrow screens, and the style sheet shows one of the
//! two: a drawing merely scaled down would have illegible labels.

use super::chart::{Chart, Series, class};
use super::escape::{escape, inline};
use super::plot::{Size, draw};
use super::scale::{figure, is_drawable};

const WIDE: Size = Size { class: "wide", width: 860.0, height: 320.0 };
const NARROW: Size = Size { class: "narrow", width: 372.0, height: 270.0 };

impl Chart {
    /// Renders the chart as HTML; `id` must be unique within the page.
    pub(super) fn html(&self, id: &str) -> String {
        let chart = self.drawable();
        if chart.series.iter().all(|series| series.points.is_empty()) {
            return "<p class=\"aside\">No points to draw.</p>\n".into();
        }
        let drawings = [WIDE, NARROW].map(|size| {
            let label = format!("{id}-{}", size.class);
            format!(
                "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
                 aria-labelledby=\"{label}-title {label}-text\">\n\
                 <title id=\"{label}-title\">{title}</title>\n\
                 <desc id=\"{label}-text\">{description}</desc>\n{drawing}</svg>\n",
                class = size.class,
                width = size.width,
                height = size.height,
                title = escape(&chart.title),
                description = escape(&chart.description()),
                drawing = draw(&chart, size),
            )
        });
        format!("<figure class=\"chart\">\n{}{}</figure>\n", chart.legend(), drawings.concat())
    }

    /// The chart with only its drawable points, sorted by x.
    fn drawable(&self) -> Self {
        let mut chart = self.clone();
        for series in &mut chart.series {
            series.points.retain(|(x, y)| is_drawable(*x) && is_drawable(*y) && (!self.is_log || *y > 0.0));
            // A resumed run may have logged its steps out of order.
            series.points.sort_by(|left, right| left.0.total_cmp(&right.0));
        }
        chart
    }

    fn legend(&self) -> String {
        let entry = |(index, series): (usize, &Series)| {
            let nothing = if series.points.is_empty() { " <span class=\"aside\">(no points)</span>" } else { "" };
            format!(
                "<li class=\"{}\"><svg viewBox=\"0 0 22 10\" aria-hidden=\"true\">\
                 <path class=\"line\" d=\"M1 5H21\"/></svg>{}{nothing}</li>\n",
                class(index),
                inline(&series.name)
            )
        };
        // A single series needs no legend: the y axis names it.
        let entries: String = match self.series.as_slice() {
            [_] => String::new(),
            series => series.iter().enumerate().map(entry).collect(),
        };
        let is_any_smoothed = self.series.iter().any(|series| self.is_smoothed(series));
        let note =
            if is_any_smoothed { "<li class=\"aside\">faint: as logged, strong: running mean</li>\n" } else { "" };
        if entries.is_empty() && note.is_empty() {
            return String::new();
        }
        format!("<ul class=\"legend\">\n{entries}{note}</ul>\n")
    }

    /// A text description for screen readers.
    fn description(&self) -> String {
        let scale = if self.is_log { ", logarithmic" } else { "" };
        let mut text = format!("{} over {}{scale}.", self.y_name, self.x_name);
        for series in &self.series {
            let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else {
                text += &format!(" {}: no points.", series.name);
                continue;
            };
            let lowest = series.points.iter().fold(f64::INFINITY, |lowest, point| lowest.min(point.1));
            let highest = series.points.iter().fold(f64::NEG_INFINITY, |highest, point| highest.max(point.1));
            text += &format!(
                " {}: {} points, from {} at {} {} to {} at {}, lowest {}, highest {}.",
                series.name,
                series.points.len(),
                figure(first.1),
                self.x_name,
                figure(first.0),
                figure(last.1),
                figure(last.0),
                figure(lowest),
                figure(highest),
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_skipped() {
        let points =
            vec![(0.0, 3.0), (1.0, f64::NAN), (2.0, f64::INFINITY), (f64::NAN, 1.0), (3.0, 1.0), (4.0, -1e200)];
        let html = Chart::new("Loss", "step", "loss").series("train", points).html("c");
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
        assert!(html.contains("train: 2 points, from 3.000 at step 0 to 1.000 at 3.000"), "{html}");
    }

    #[test]
    fn charts_without_points_say_so() {
        assert!(Chart::new("Loss", "step", "loss").html("c").contains("No points"));
        assert!(Chart::new("a", "b", "c").series("d", vec![(1.0, f64::NAN)]).html("c").contains("No points"));
        assert!(Chart::new("a", "b", "c").log().series("d", vec![(1.0, 0.0)]).html("c").contains("No points"));
        let half = Chart::new("a", "b", "c").series("d", vec![]).series("e", vec![(1.0, 1.0)]).html("c");
        assert!(half.contains("(no points)") && half.contains("<circle"), "{half}");
    }

    #[test]
    fn names_are_escaped() {
        let html = Chart::new("<b>", "<i>", "<u>").series("<s>", vec![(0.0, 1.0), (1.0, 2.0)]).html("c");
        for tag in ["<b>", "<i>", "<u>", "<s>"] {
            assert!(!html.contains(tag), "{tag}");
        }
    }

    #[test]
    fn a_long_noisy_series_makes_a_small_page() {
        let points: Vec<_> = (0..200_000).map(|step| (f64::from(step), f64::from(step * 7919 % 1000))).collect();
        let html = Chart::new("Loss", "step", "loss").smoothed().series("train", points).html("c");
        assert!(html.len() < 100_000, "{} bytes", html.len());
    }
}
