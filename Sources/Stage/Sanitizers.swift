import CKernel

/// Links the list of what ThreadSanitizer is not to report into whatever uses this module. `CKernel.h` says why there is one.
let threadSanitizerSuppressions = __tsan_default_suppressions
