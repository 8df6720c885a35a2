//! The vendor names of the contract (oms.md §5.1); handlers only read them.

/// Vendors in the order of oms.md §5.1.
pub(crate) const VENDORS: [&str; 11] = [
    "AWS",
    "Azure",
    "Aliyun",
    "Tencent",
    "HuaweiCloud",
    "QingCloud",
    "KingsoftCloud",
    "Baidu",
    "Qiniu",
    "Google",
    "UCloud",
];

/// The vendor name of lists of URLs.
pub(crate) const URLS: &str = "URLSource";
