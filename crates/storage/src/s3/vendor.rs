//! Vendors that speak the S3 dialect, as data: where their buckets are, and how their own headers begin.
//!
//! Each documents an S3-compatible endpoint with signature version 4; what differs are host names and the headers
//! that S3 does not have. Sources: the vendors' pages on S3 compatibility and endpoints.

use super::addressing::Addressing;

/// One vendor.
#[derive(Debug, PartialEq, Eq)]
pub struct Vendor {
    /// As oms.md §5.1 spells it.
    pub name: &'static str,
    /// Its own headers begin with this, as `x-oss-`.
    pub prefix: &'static str,
    /// It keeps the CRC-64/ECMA of each object and tells it in `…hash-crc64ecma`.
    pub crc64_ecma: bool,
    /// An archived object can be asked to be readable for some days.
    pub restores: bool,
    /// Endpoint; `{region}` stands for the region. Empty: only what the operator configures.
    pub endpoint: &'static str,
    /// How buckets are named there.
    pub addressing: Addressing,
    /// Regions that can be named without configuration.
    pub regions: &'static [&'static str],
}

const fn vendor(name: &'static str, prefix: &'static str) -> Vendor {
    Vendor {
        name,
        prefix,
        crc64_ecma: false,
        restores: true,
        endpoint: "",
        addressing: Addressing::Virtual,
        regions: &[],
    }
}

/// Whatever speaks S3 without being one of [`VENDORS`].
pub static GENERIC: Vendor = vendor("", "x-amz-");

/// The vendors, in the order of oms.md §5.1.
pub static VENDORS: [Vendor; 10] = [
    Vendor {
        endpoint: "https://s3.{region}.amazonaws.com",
        regions: &[
            "us-east-1",
            "us-east-2",
            "us-west-1",
            "us-west-2",
            "ca-central-1",
            "ca-west-1",
            "eu-central-1",
            "eu-central-2",
            "eu-west-1",
            "eu-west-2",
            "eu-west-3",
            "eu-north-1",
            "eu-south-1",
            "eu-south-2",
            "ap-east-1",
            "ap-south-1",
            "ap-south-2",
            "ap-northeast-1",
            "ap-northeast-2",
            "ap-northeast-3",
            "ap-southeast-1",
            "ap-southeast-2",
            "ap-southeast-3",
            "ap-southeast-4",
            "sa-east-1",
            "af-south-1",
            "me-south-1",
            "me-central-1",
            "il-central-1",
            "cn-north-1",
            "cn-northwest-1",
        ],
        ..vendor("AWS", "x-amz-")
    },
    Vendor {
        crc64_ecma: true,
        endpoint: "https://s3.oss-{region}.aliyuncs.com",
        regions: &[
            "cn-hangzhou",
            "cn-shanghai",
            "cn-qingdao",
            "cn-beijing",
            "cn-zhangjiakou",
            "cn-huhehaote",
            "cn-wulanchabu",
            "cn-shenzhen",
            "cn-heyuan",
            "cn-guangzhou",
            "cn-chengdu",
            "cn-hongkong",
            "us-west-1",
            "us-east-1",
            "ap-northeast-1",
            "ap-northeast-2",
            "ap-southeast-1",
            "ap-southeast-3",
            "ap-southeast-5",
            "ap-southeast-6",
            "ap-southeast-7",
            "eu-central-1",
            "eu-west-1",
            "me-east-1",
        ],
        ..vendor("Aliyun", "x-oss-")
    },
    Vendor {
        crc64_ecma: true,
        endpoint: "https://cos.{region}.myqcloud.com",
        regions: &[
            "ap-beijing",
            "ap-beijing-1",
            "ap-nanjing",
            "ap-shanghai",
            "ap-guangzhou",
            "ap-chengdu",
            "ap-chongqing",
            "ap-hongkong",
            "ap-singapore",
            "ap-mumbai",
            "ap-jakarta",
            "ap-seoul",
            "ap-bangkok",
            "ap-tokyo",
            "na-siliconvalley",
            "na-ashburn",
            "na-toronto",
            "sa-saopaulo",
            "eu-frankfurt",
        ],
        ..vendor("Tencent", "x-cos-")
    },
    Vendor {
        crc64_ecma: true,
        endpoint: "https://obs.{region}.myhuaweicloud.com",
        regions: &[
            "cn-north-1",
            "cn-north-4",
            "cn-north-9",
            "cn-north-12",
            "cn-east-2",
            "cn-east-3",
            "cn-east-4",
            "cn-south-1",
            "cn-south-4",
            "cn-southwest-2",
            "ap-southeast-1",
            "ap-southeast-2",
            "ap-southeast-3",
            "ap-southeast-4",
            "ap-southeast-5",
            "af-south-1",
            "me-east-1",
            "tr-west-1",
            "la-south-2",
            "la-north-2",
            "sa-brazil-1",
        ],
        ..vendor("HuaweiCloud", "x-obs-")
    },
    Vendor {
        restores: false,
        endpoint: "https://s3.{region}.qingstor.com",
        addressing: Addressing::Path,
        regions: &["pek3a", "pek3b", "gd2", "sh1a"],
        ..vendor("QingCloud", "x-qs-")
    },
    Vendor {
        endpoint: "https://ks3-{region}.ksyuncs.com",
        regions: &["cn-beijing", "cn-shanghai", "cn-guangzhou", "cn-qingyang-1", "cn-hk-1", "sgp", "rus"],
        ..vendor("KingsoftCloud", "x-kss-")
    },
    Vendor {
        endpoint: "https://s3.{region}.bcebos.com",
        regions: &["bj", "gz", "su", "bd", "fwh", "fsh", "hkg"],
        ..vendor("Baidu", "x-bce-")
    },
    Vendor {
        endpoint: "https://s3.{region}.qiniucs.com",
        regions: &[
            "cn-east-1",
            "cn-east-2",
            "cn-north-1",
            "cn-south-1",
            "us-north-1",
            "ap-southeast-1",
            "ap-northeast-1",
        ],
        ..vendor("Qiniu", "x-qiniu-")
    },
    Vendor {
        restores: false,
        endpoint: "https://storage.googleapis.com",
        addressing: Addressing::Path,
        regions: &["auto"],
        ..vendor("Google", "x-goog-")
    },
    Vendor {
        restores: false,
        endpoint: "https://s3-{region}.ufileos.com",
        regions: &["cn-bj", "cn-sh2", "cn-gd", "cn-wlcb", "hk", "us-ca", "sg", "idn-jakarta"],
        ..vendor("UCloud", "x-ufile-")
    },
];

impl Vendor {
    /// The vendor of a name, whatever its case; what is no vendor's name is [`GENERIC`].
    pub fn named(name: &str) -> &'static Vendor {
        VENDORS.iter().find(|v| v.name.eq_ignore_ascii_case(name)).unwrap_or(&GENERIC)
    }

    /// Endpoint and region to sign for, when the vendor serves `region`.
    pub fn serves(&self, region: &str) -> Option<(String, String)> {
        // Aliyun's regions are written with and without the name of its service.
        let bare = region.strip_prefix("oss-").filter(|_| self.name == "Aliyun").unwrap_or(region);
        if self.name != "Google" && !self.regions.contains(&bare) {
            return None;
        }
        let mut endpoint = self.endpoint.replace("{region}", bare);
        // Amazon's partition in China has a domain of its own.
        if self.name == "AWS" && bare.starts_with("cn-") {
            endpoint.push_str(".cn");
        }
        Some((endpoint, bare.to_owned()))
    }

    /// The name of one of its own headers.
    pub(super) fn header(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }
}

/// True for a class whose objects must be restored before they can be read, by any vendor's name for it.
pub(super) fn is_archive(class: &str) -> bool {
    let class = class.to_ascii_uppercase().replace('-', "_");
    matches!(
        class.as_str(),
        "GLACIER" | "DEEP_ARCHIVE" | "COLD" | "ARCHIVE" | "COLDARCHIVE" | "DEEPCOLDARCHIVE" | "COLD_ARCHIVE"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendor_regions_become_endpoints() {
        let at = |vendor: &str, region: &str| Vendor::named(vendor).serves(region).map(|s| s.0);
        assert_eq!(at("aws", "eu-west-1").unwrap(), "https://s3.eu-west-1.amazonaws.com");
        assert_eq!(at("AWS", "cn-north-1").unwrap(), "https://s3.cn-north-1.amazonaws.com.cn");
        assert_eq!(at("Aliyun", "oss-cn-beijing").unwrap(), "https://s3.oss-cn-beijing.aliyuncs.com");
        assert_eq!(at("Aliyun", "cn-beijing").unwrap(), "https://s3.oss-cn-beijing.aliyuncs.com");
        assert_eq!(at("HuaweiCloud", "cn-north-4").unwrap(), "https://obs.cn-north-4.myhuaweicloud.com");
        assert_eq!(at("HuaweiCloud", "evil.example/x"), None);
        assert_eq!(at("nobody", "us-east-1"), None);
    }

    #[test]
    fn every_vendor_endpoint_is_valid() {
        for vendor in &VENDORS {
            for region in vendor.regions {
                let (endpoint, _) = vendor.serves(region).unwrap();
                crate::http::Client::new(&endpoint, crate::egress::Egress::anywhere()).unwrap();
            }
        }
    }
}
