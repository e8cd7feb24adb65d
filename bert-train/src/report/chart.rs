//! The data of line charts.

/// A line chart of one or more series over the same x axis.
///
/// Points that are not finite (or not positive, on a logarithmic axis) are omitted. Long series are
/// thinned to the resolution of a screen, keeping extremes.
#[derive(Debug, Clone)]
pub struct Chart {
    pub(super) title: String,
    pub(super) x_name: String,
    pub(super) y_name: String,
    pub(super) is_log: bool,
    pub(super) is_smoothed: bool,
    pub(super) bounds: Option<(f64, f64)>,
    pub(super) series: Vec<Series>,
}

/// A named line of a chart.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Minimum number of points for smoothing; shorter series have no noise to remove.
const SMOOTHED_FROM: usize = 100;

impl Chart {
    /// An empty chart with a title and axis labels.
    pub fn new(title: impl Into<String>, x_name: impl Into<String>, y_name: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            x_name: x_name.into(),
            y_name: y_name.into(),
            is_log: false,
            is_smoothed: false,
            bounds: None,
            series: Vec::new(),
        }
    }

    /// Adds a line through `(x, y)` points.
    #[must_use]
    pub fn series(mut self, name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        self.series.push(Series { name: name.into(), points });
        self
    }

    /// Draws y on a logarithmic axis.
    #[must_use]
    pub fn log(mut self) -> Self {
        self.is_log = true;
        self
    }

    /// Keeps the y axis between the smallest and the largest possible value, such as 0 and 1 for a fraction. Has no
    /// effect if a value lies outside.
    #[must_use]
    pub fn bounded(mut self, smallest: f64, largest: f64) -> Self {
        self.bounds = Some((smallest, largest));
        self
    }

    /// Draws long series faintly, overlaid with their running mean over a fiftieth of the points.
    #[must_use]
    pub fn smoothed(mut self) -> Self {
        self.is_smoothed = true;
        self
    }

    /// Whether a series is drawn faintly under its running mean.
    pub(super) fn is_smoothed(&self, series: &Series) -> bool {
        self.is_smoothed && series.points.len() >= SMOOTHED_FROM
    }
}

/// The style class of the series at `index`: six colors, then the same six dashed.
pub(super) fn class(index: usize) -> String {
    let dash = if index / 6 % 2 == 1 { " dashed" } else { "" };
    format!("s{}{dash}", index % 6)
}
