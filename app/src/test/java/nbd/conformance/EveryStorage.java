package nbd.conformance;

import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.EnumSource;

/** Cases that reach the storage: they run on each one, and through each filter. */
@ParameterizedClass(name = "{0}")
@EnumSource(Storage.class)
abstract class EveryStorage extends StorageCases {}
